/** What is told of a domain. */

import type { DiskInfo, DomainInfo } from "./calls.ts";
import { layersOf } from "./definition.ts";
import { DOMAIN_STATE } from "./enums.ts";
import { type DomainRecord, deviceId, formatNode } from "./record.ts";
import { pathOf } from "./source.ts";

export function domainInfo(record: DomainRecord): DomainInfo {
  const isRunning = record.state === "running";
  return {
    name: record.definition.name,
    id: isRunning ? record.id : null,
    state: isRunning ? DOMAIN_STATE.RUNNING : DOMAIN_STATE.SHUTOFF,
    disks: isRunning ? openDisks(record) : definedDisks(record),
  };
}

function openDisks(record: DomainRecord): DiskInfo[] {
  return record.disks.map((disk) => ({
    target: disk.target,
    readonly: disk.readonly,
    device: deviceId(record, disk),
    chain: disk.layers.map((layer) => {
      const { format, source } = layer;
      return { format, source, path: pathOf(source), node: formatNode(layer) };
    }),
  }));
}

function definedDisks({ definition }: DomainRecord): DiskInfo[] {
  return definition.disks.map((disk) => ({
    target: disk.target,
    readonly: disk.readonly ?? false,
    device: null,
    chain: layersOf(disk).map((layer) => ({ ...layer, path: pathOf(layer.source), node: null })),
  }));
}
