/** Opens what a crash has left, as whoever comes next does: from the headers on, in memory. */

import { createHash } from "node:crypto";
import { type CheckFix, type CheckResult, checkNode } from "../../src/block/check.ts";
import type { World } from "../../src/block/driver.ts";
import type { Graph } from "../../src/block/graph.ts";
import * as io from "../../src/block/io.ts";
import type { BlockNode } from "../../src/block/node.ts";
import { idsOf } from "./content.ts";
import type { Files } from "./log.ts";
import { Recorder } from "./recorder.ts";
import { graphOf, keyOf } from "./trial.ts";

export class Look {
  readonly recorder = new Recorder();
  readonly graph: Graph;
  readonly files: Files;

  constructor(world: World, files: Files) {
    this.files = files;
    for (const [name, bytes] of files) this.recorder.add(name, bytes);
    this.graph = graphOf(world, this.recorder, null);
  }

  /** The image of this file over those that its header leads to. */
  async open(name: string, readOnly = true): Promise<BlockNode> {
    const chain = [name];
    if (this.files.size > 1) {
      for (let below = await this.#backingOf(name); below; below = await this.#backingOf(below)) {
        chain.push(below);
      }
    }
    let node: BlockNode | null = null;
    for (const file of chain.reverse()) {
      const isTop = file === name;
      node = await this.graph.add(this.#options(file, readOnly || !isTop, node?.name ?? null));
    }
    return node!;
  }

  /** Checks one image, or mends it: then its file here is another one. */
  async check(name: string, fix: CheckFix): Promise<CheckResult> {
    const node = await this.graph.addForCheck(this.#options(name, fix === "none", null));
    const { result } = await checkNode(node, { fix });
    await this.graph.remove(name);
    return result;
  }

  /** Checks one image. @returns `read` names all that the result depends on: guests' data is not in it */
  async checkReading(name: string): Promise<{ result: CheckResult; read: string }> {
    const hash = createHash("sha1").update(`${name} `);
    for (const { length } of this.files.values()) hash.update(`${length} `);
    this.recorder.onRead = (bytes, offset) => hash.update(`${offset} `).update(bytes);
    const result = await this.check(name, "none");
    this.recorder.onRead = null;
    return { result, read: hash.digest("base64") };
  }

  async close(node: BlockNode): Promise<void> {
    for (let top: BlockNode | undefined = node; top; ) {
      const below: BlockNode | undefined = top.children.get("backing")?.node;
      await this.graph.remove(top.name);
      top = below;
    }
  }

  async #backingOf(name: string): Promise<string | undefined> {
    const node = await this.graph.add(this.#options(name, true, null));
    const below = node.state.info?.()["backing-filename"];
    await this.graph.remove(node.name);
    return below?.replace(/^(\.\/)+/, "");
  }

  #options(file: string, readOnly: boolean, backing: string | null) {
    const data = `${file}.data`;
    return {
      driver: "qcow2",
      "node-name": file,
      "read-only": readOnly,
      backing,
      file: { driver: "recorded", filename: file },
      ...keyOf(file),
      ...(this.files.has(data) && { "data-file": { driver: "recorded", filename: data } }),
    };
  }
}

/** A disk: of which write each sector is, and its length. */
export interface Read {
  readonly ids: Int32Array;
  readonly bytes: number;
}

export async function readIds(node: BlockNode): Promise<Read> {
  const disk = new Uint8Array(io.getLength(node));
  await io.read(node, disk, 0, {});
  return { ids: idsOf(disk), bytes: disk.length };
}
