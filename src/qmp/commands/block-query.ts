/** What there is: nodes and devices (QEMU: qapi/block-core.json). */

import * as v from "valibot";
import { blockGraph, graphOf } from "../block-graph.ts";
import { keptBitmaps, nodeInfo, skipImplicit } from "../block-info.ts";
import { deviceStats, nodeStats } from "../block-stats.ts";
import { command } from "../schema.ts";
import { blockDeviceInfo, blockInfo, blockStats } from "../types.ts";

export const queryNamedBlockNodes = command({
  name: "query-named-block-nodes",
  doc: "Lists all nodes, the newest first.",
  args: {
    /** Leave out the images behind each node, which are in the list on their own anyway. */
    flat: v.optional(v.boolean()),
  },
  returns: v.array(blockDeviceInfo),
  async run({ graph }, { flat = false }) {
    const kept = await keptBitmaps(graph.nodes);
    return [...graph.nodes].reverse().map((node) => nodeInfo(node, { flat, kept }));
  },
});

export const queryBlock = command({
  name: "query-block",
  doc: "Lists all devices. Filters that jobs have put in by themselves are not shown.",
  args: {},
  returns: v.array(blockInfo),
  async run({ graph }) {
    const options = { skipImplicit: true, kept: await keptBitmaps(graph.nodes) };
    return graph.backends
      .filter(({ name }) => name !== "")
      .map((backend) => ({
        device: backend.name,
        type: "unknown",
        removable: false,
        locked: false,
        inserted: nodeInfo(skipImplicit(backend.node), options),
      }));
  },
});

export const queryBlockstats = command({
  name: "query-blockstats",
  doc: "Tells what went through all devices, or through all nodes.",
  args: { "query-nodes": v.optional(v.boolean()) },
  returns: v.array(blockStats),
  run: ({ graph, clock }, { "query-nodes": ofNodes = false }) =>
    ofNodes
      ? graph.nodes.map(nodeStats)
      : graph.backends
          .filter(({ name }) => name !== "")
          .map((backend) => deviceStats(backend, clock.now())),
});

export const xDebugQueryBlockGraph = command({
  name: "x-debug-query-block-graph",
  doc: "Shows devices, nodes, and who takes and shares which permissions of whom.",
  args: {},
  returns: blockGraph,
  run: ({ graph }) => graphOf(graph),
});
