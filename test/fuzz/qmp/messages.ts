/**
 * Messages for one engine: bytes that are hardly JSON, requests by the schema with wild values,
 * requests that break it, and sequences that make nodes and jobs and do things to them, so that the
 * wild ones meet something.
 */

import type { Dice } from "../../model/dice.ts";
import { Generator } from "../../qmp/introspect/generate.ts";
import type { SchemaGraph } from "../../qmp/introspect/types.ts";
import { Corpus } from "../../qmp/json/corpus.ts";
import { BITMAPS, EXPORTS, JOBS, leavesOf, NODES, OBJECTS, STORES } from "./names.ts";

type Members = Record<string, unknown>;

/** Not sent: it would change what the replies are counted by. */
const LEFT_OUT = new Set(["qmp_capabilities"]);

const VERBS = ["pause", "resume", "cancel", "complete", "finalize", "dismiss"];

export class Messages {
  readonly #dice: Dice;
  readonly #graph: SchemaGraph;
  readonly #commands: readonly string[];
  readonly #generator: Generator;
  readonly #corpus: Corpus;

  constructor(graph: SchemaGraph, dice: Dice) {
    this.#dice = dice;
    this.#graph = graph;
    this.#commands = graph
      .all("command")
      .map(({ name }) => name)
      .filter((name) => !LEFT_OUT.has(name));
    this.#generator = new Generator(graph, dice, leavesOf(dice));
    this.#corpus = new Corpus(dice.random);
  }

  /** Bytes, or an object as over a port. */
  next(): Uint8Array | object {
    switch (this.#dice.below(10)) {
      case 0:
        return this.#corpus.next();
      case 1:
        return this.#oddObject();
      case 2:
      case 3:
      case 4:
        return this.#bySchema();
      default:
        return this.#useful();
    }
  }

  #bySchema(): object {
    const name = this.#dice.pick(this.#commands);
    const info = this.#graph.get(name);
    if (info["meta-type"] !== "command") throw new Error(`'${name}' is no command`);
    const args = this.#generator.value(info["arg-type"]) as Members;
    const broken = this.#dice.oneIn(5) && this.#generator.broken(info["arg-type"], args);
    return request(name, broken || args);
  }

  /** What only a port lets through. */
  #oddObject(): object {
    const { arguments: args, ...rest } = this.#bySchema() as { arguments: Members };
    const odd = this.#dice.pick<unknown>([
      undefined,
      Number.NaN,
      2n ** 63n,
      -1n,
      new Map([[1, 2]]),
      new Date(0),
      new Uint8Array(3),
      { a: { b: {} } },
      [[[]]],
      null,
    ]);
    const member = this.#dice.pick([...Object.keys(args), "id", "x"]);
    return this.#dice.oneIn(2)
      ? { ...rest, arguments: { ...args, [member]: odd } }
      : { ...rest, arguments: args, [member]: odd };
  }

  /** Something that mostly works. */
  #useful(): object {
    const { pick } = { pick: <T>(list: readonly T[]) => this.#dice.pick(list) };
    const node = pick(NODES);
    const job = { "job-id": pick(JOBS), "auto-dismiss": pick([true, false]) };
    const speed = { speed: pick([0, 0, 65536, 2 ** 30]) };
    const size = pick([0, 65536, 2 ** 20]);
    const name = pick(STORES);
    const bitmap = { node, name: pick(BITMAPS) };
    const makers: readonly (() => object)[] = [
      () => request("blockdev-add", { driver: "memory", "node-name": node, size }),
      () => request("blockdev-add", { driver: "memory", "node-name": node, name }),
      () => request("blockdev-add", { driver: "raw", "node-name": node, file: pick(NODES) }),
      () =>
        request("blockdev-add", {
          driver: "qcow2",
          "node-name": node,
          file: { driver: "memory", name },
          ...pick([{ backing: pick(NODES) }, { backing: null }, {}]),
        }),
      () =>
        request("blockdev-add", { driver: "copy-on-read", "node-name": node, file: pick(NODES) }),
      () =>
        request("blockdev-create", {
          "job-id": job["job-id"],
          options: { driver: "memory", name, size },
        }),
      () =>
        request("blockdev-create", {
          "job-id": job["job-id"],
          options: { driver: "qcow2", file: node, size: 2 ** 20 },
        }),
      () => request("blockdev-del", { "node-name": node }),
      () => request("blockdev-snapshot", { node, overlay: pick(NODES) }),
      () => request("block_resize", { "node-name": node, size: 2 ** 20 }),
      () => request("block-stream", { device: node, ...job, ...speed }),
      () => request("block-commit", { device: node, ...job, ...speed }),
      () =>
        request("blockdev-mirror", {
          device: node,
          target: pick(NODES),
          sync: "full",
          ...job,
          ...speed,
        }),
      () =>
        request("blockdev-backup", {
          device: node,
          target: pick(NODES),
          sync: "full",
          ...job,
          ...speed,
        }),
      () => request(`job-${pick(VERBS)}`, { id: job["job-id"] }),
      () => request("block-job-set-speed", { device: job["job-id"], ...speed }),
      () => request("block-dirty-bitmap-add", { ...bitmap, persistent: pick([true, false]) }),
      () => request(`block-dirty-bitmap-${pick(["remove", "clear", "enable", "disable"])}`, bitmap),
      () =>
        request("block-export-add", { type: "message-port", id: pick(EXPORTS), "node-name": node }),
      () => request("block-export-del", { id: pick(EXPORTS), mode: pick(["safe", "hard"]) }),
      () => request("object-add", { "qom-type": "throttle-group", id: pick(OBJECTS) }),
      () => request("object-del", { id: pick(OBJECTS) }),
      () => request(pick(this.#commands.filter((one) => one.startsWith("query-"))), {}),
      () =>
        request("transaction", {
          actions: [
            { type: "block-dirty-bitmap-add", data: bitmap },
            { type: pick(["block-dirty-bitmap-clear", "block-dirty-bitmap-remove"]), data: bitmap },
            ...pick([[], [{ type: "abort", data: {} }]]),
          ],
        }),
    ];
    return pick(makers)();
  }
}

function request(execute: string, args: object): object {
  return { execute, arguments: args };
}
