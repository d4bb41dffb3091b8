/**
 * What `info` tells of one image, and of the nodes below it, as QEMU's BlockGraphInfo and ImageInfo
 * (qapi/block-core.json): put together from a look into the image, and as text for people.
 */

import { alignUp, SECTOR_BYTES } from "../base/bytes.ts";
import type { SnapshotInfo, StateInfo } from "../block/driver.ts";
import { snapshotJson, withBitmaps } from "../block/image-info.ts";
import type { BlockdevOptions } from "../block/options.ts";
import { orderedEntries } from "./json.ts";
import { peek, storeNameOf } from "./peek.ts";
import type { Session } from "./session.ts";
import { humanSize } from "./size.ts";
import { snapshotTable } from "./snapshot-list.ts";

export interface ImageInfo {
  readonly filename: string;
  readonly format: string;
  readonly "virtual-size": number;
  readonly "actual-size"?: number | undefined;
  readonly "cluster-size"?: number | undefined;
  readonly encrypted?: true | undefined;
  readonly compressed?: true | undefined;
  readonly "dirty-flag"?: boolean | undefined;
  readonly "backing-filename"?: string | undefined;
  readonly "full-backing-filename"?: string | undefined;
  readonly "backing-filename-format"?: string | undefined;
  readonly snapshots?: readonly object[] | undefined;
  readonly "format-specific"?: { readonly type: string; readonly data: object } | undefined;
  readonly children: readonly { readonly name: string; readonly info: ImageInfo }[];
}

/** One image of a chain, with what is needed to go on and to show it. */
export interface LookedInto {
  readonly info: ImageInfo;
  readonly snapshots: readonly SnapshotInfo[];
  readonly identity: unknown;
}

/** @throws BlockError what opening the image throws */
export async function lookInto(session: Session, options: BlockdevOptions): Promise<LookedInto> {
  const glimpse = await peek(session, options, true);
  const { file, snapshots, bitmaps, identity, length } = glimpse;
  const specific = glimpse.info["format-specific"];
  const filename = storeNameOf(options);
  const store = ownInfo(filename, file.driver, file.length, file.info);
  const label = glimpse.info["backing-filename"];
  const info = {
    ...ownInfo(filename, options.driver, length, glimpse.info),
    "actual-size": store["actual-size"],
    ...(label !== undefined && {
      "full-backing-filename": session.host.fullName(label, filename),
    }),
    snapshots: snapshots.length > 0 ? snapshots.map(snapshotJson) : undefined,
    "format-specific": specific && withBitmaps(specific, bitmaps),
    children: [{ name: "file", info: store }],
  };
  return { info, snapshots, identity };
}

function ownInfo(filename: string, format: string, length: number, info: StateInfo): ImageInfo {
  const { "dirty-flag": dirty = false } = info;
  return {
    filename,
    format,
    // Guests see whole sectors, the last one filled up with zeroes.
    "virtual-size": alignUp(length, SECTOR_BYTES),
    "actual-size": info["actual-size"],
    "cluster-size": info["cluster-size"],
    encrypted: info.encrypted ? true : undefined,
    compressed: info.compressed ? true : undefined,
    "dirty-flag": dirty ?? undefined,
    "backing-filename": info["backing-filename"],
    "backing-filename-format": info["backing-filename-format"],
    "format-specific": info["format-specific"],
    children: [],
  };
}

/** For people, with the nodes below it. */
export function describeImage({ info, snapshots }: LookedInto): string {
  return describe(info, snapshots, "", "/");
}

function describe(
  info: ImageInfo,
  snapshots: readonly SnapshotInfo[],
  indent: string,
  path: string,
): string {
  const isStore = info.children.length === 0;
  const { "virtual-size": bytes, "actual-size": room, "cluster-size": cluster } = info;
  const backing = info["backing-filename"];
  const full = info["full-backing-filename"];
  const lines = [
    isStore ? `filename: ${info.filename}` : `image: ${info.filename}`,
    isStore ? `protocol type: ${info.format}` : `file format: ${info.format}`,
    `${isStore ? "file length" : "virtual size"}: ${humanSize(bytes)} (${bytes} bytes)`,
    `disk size: ${room === undefined ? "unavailable" : humanSize(room)}`,
    ...(info.encrypted ? ["encrypted: yes"] : []),
    ...(cluster === undefined ? [] : [`cluster_size: ${cluster}`]),
    ...(info["dirty-flag"] ? ["cleanly shut down: no"] : []),
    ...(backing === undefined
      ? []
      : [`backing file: ${backing}${full === backing ? "" : ` (actual path: ${full})`}`]),
    ...(info["backing-filename-format"] === undefined
      ? []
      : [`backing file format: ${info["backing-filename-format"]}`]),
    ...snapshotTable(snapshots).split("\n").filter(Boolean),
    ...describeSpecific(info["format-specific"]?.data ?? {}),
  ];
  const own = lines.map((line) => `${indent}${line}\n`).join("");
  const below = info.children.map(({ name, info: child }) => {
    const childPath = `${path}${name}`;
    const text = describe(child, [], `${indent}    `, `${childPath}/`);
    return `${indent}Child node '${childPath}':\n${text}`;
  });
  return own + below.join("");
}

function describeSpecific(data: object): string[] {
  const lines = describeMembers(data, "    ");
  return lines.length > 0 ? ["Format specific information:", ...lines] : [];
}

/** A tree with a level for each 4 spaces; names with spaces where they have dashes. */
function describeMembers(value: object, indent: string): string[] {
  const entries: [string, unknown][] = Array.isArray(value)
    ? value.map((item, i) => [`[${i}]`, item])
    : orderedEntries(value).map(([name, member]) => [name.replaceAll("-", " "), member]);
  return entries.flatMap(([name, member]) => {
    if (typeof member !== "object" || member === null) return [`${indent}${name}: ${member}`];
    return [`${indent}${name}:`, ...describeMembers(member, `${indent}    `)];
  });
}
