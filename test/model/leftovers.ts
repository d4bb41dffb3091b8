/** What must be gone when no job is left: filters, blocks, frozen links, ways to nodes, timers. */

import type { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { Engine } from "../../src/engine/engine.ts";

export function checkNothingIsLeft(engine: Engine, clock: VirtualClock): void {
  const left: string[] = [];
  for (const node of engine.graph.nodes) {
    if (node.implicit || node.driver.kind === "filter") left.push(`filter ${node.name}`);
    if (node.blockers.size > 0) left.push(`a block on ${node.name}`);
    if (!node.isIdle || !node.ranges.idle) left.push(`a request on ${node.name}`);
    for (const [role, edge] of node.children) {
      if (edge.frozen !== 0) left.push(`${node.name}'s link to its ${role}, frozen`);
    }
    for (const bitmap of node.bitmaps.all()) {
      if (bitmap.name === null || bitmap.busy) left.push(`a job's bitmap on ${node.name}`);
    }
  }
  for (const backend of engine.graph.backends) {
    if (backend.name === "") left.push(`${backend.description}'s way to ${backend.node.name}`);
  }
  if (clock.timerCount > 0) left.push(`${clock.timerCount} timers`);
  if (left.length > 0) throw new Error(`Left behind: ${left.join("; ")}`);
}
