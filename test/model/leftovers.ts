/** What must be gone when no job is left: filters, blocks, frozen links, ways to nodes, timers. */

import type { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { Guest } from "./guest.ts";
import { LASTING } from "./images.ts";

export function checkNothingIsLeft(engine: Engine, clock: VirtualClock): void {
  const left: string[] = [];
  for (const node of engine.graph.nodes) {
    const isFilter = node.implicit || node.driver.kind === "filter";
    if (isFilter && !node.name.startsWith(LASTING)) left.push(`filter ${node.name}`);
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

/** Images that jobs had to write to are read-only again, unless a storm kept them from it. */
export function checkReadOnly({ graph }: Engine, guests: readonly Guest[]): void {
  for (const name of guests.flatMap((guest) => [...guest.readOnly])) {
    if (graph.find(name)?.readOnly === false) throw new Error(`${name} is still open for writing`);
  }
}
