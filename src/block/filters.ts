/** Filters that come and go while a node is in use: put in above it, and taken out again. */

import { BlockError } from "../base/errors.ts";
import { Mutex } from "../base/mutex.ts";
import type { Drains } from "./drain.ts";
import type { BlockDriver } from "./driver.ts";
import * as io from "./io.ts";
import type { Links } from "./links.ts";
import type { BlockNode } from "./node.ts";
import type { Opener } from "./opener.ts";
import { type BlockdevOptions, roleMember } from "./options.ts";

export class Filters {
  readonly #opener: Opener;
  readonly #links: Links;
  readonly #drains: Drains;
  /**
   * One insertion after another: of two filters on their way in, each would take the other for a user
   * of the node, and the graph would become a circle.
   */
  readonly #insertions = new Mutex();

  constructor(opener: Opener, links: Links, drains: Drains) {
    this.#opener = opener;
    this.#links = links;
    this.#drains = drains;
  }

  /** @throws BlockError as Graph.insertFilter(); nothing has changed then */
  insert(options: BlockdevOptions, node: BlockNode, driver: BlockDriver): Promise<BlockNode> {
    return this.#insertions.run(async () => {
      const implicit = options["node-name"] === undefined;
      const filter = await this.#opener.open(
        { ...options, [roleMember(driver, "file")]: node.name },
        { readOnly: node.readOnly, monitorOwned: true, implicit, isJobFilter: true },
        undefined,
        driver,
      );
      try {
        await this.#drains.run([node], () => {
          // It may have become the backing file of another: then the filter is that one's now.
          if (io.fileOf(filter).node !== node) throw replacedError(node);
          // Not those below the filter: its target may have the node for a backing file.
          this.#links.giveUsers(node, filter);
        });
      } catch (error) {
        this.#links.point([...filter.parents], io.fileOf(filter).node);
        await this.#opener.close(filter);
        throw error;
      }
      return filter;
    });
  }

  /** Puts a filter's users back onto what is below it and closes it. */
  async remove(filter: BlockNode): Promise<void> {
    let closed: Promise<void> | undefined;
    await this.#drains.run([filter], () => {
      this.#links.point([...filter.parents], io.fileOf(filter).node);
      // In the same turn: nobody who knows its name comes to use it.
      closed = this.#opener.close(filter);
    });
    await closed;
  }
}

/** What was waited for is no longer so. */
export function replacedError(node: BlockNode): BlockError {
  return new BlockError(
    "EBUSY",
    `Node '${node.name}' has lost its users to another node while they came to rest`,
  );
}
