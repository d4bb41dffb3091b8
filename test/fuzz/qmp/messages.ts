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

/** What there is at the moment. */
export interface Live {
  nodes(): readonly string[];
  jobs(): readonly string[];
}

export class Messages {
  readonly #dice: Dice;
  readonly #live: Live;
  readonly #graph: SchemaGraph;
  readonly #commands: readonly string[];
  readonly #generator: Generator;
  readonly #corpus: Corpus;
  /** A sequence that makes sense, with anything in between. */
  readonly #plan: object[] = [];

  constructor(graph: SchemaGraph, dice: Dice, live: Live) {
    this.#dice = dice;
    this.#live = live;
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
    const planned = this.#dice.oneIn(3) ? undefined : this.#plan.shift();
    if (planned) return planned;
    if (this.#plan.length === 0 && this.#dice.oneIn(20)) this.#plan.push(...this.#chain());
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

  /** A disk and its overlay, a second disk, and a job on them. */
  #chain(): object[] {
    const { base, file, top, other } = shuffledNodes(this.#dice);
    const job = this.#dice.pick(JOBS);
    const store = this.#dice.pick(STORES);
    const size = 2 ** 20;
    const common = { "job-id": job, device: top, speed: this.#dice.pick([0, 65536]) };
    return [
      request("blockdev-create", {
        "job-id": job,
        options: { driver: "memory", name: store, size: 0 },
      }),
      request("job-dismiss", { id: job }),
      request("blockdev-add", { driver: "memory", "node-name": file, name: store }),
      request("blockdev-create", { "job-id": job, options: { driver: "qcow2", file, size } }),
      request("job-dismiss", { id: job }),
      request("blockdev-add", { driver: "memory", "node-name": base, size }),
      request("blockdev-add", { driver: "memory", "node-name": other, size }),
      request("blockdev-add", { driver: "qcow2", "node-name": top, file, backing: base }),
      this.#dice.pick([
        request("block-stream", common),
        request("block-commit", common),
        request("blockdev-mirror", { ...common, target: other, sync: "full" }),
        request("blockdev-backup", { ...common, target: other, sync: "full" }),
      ]),
      request(`job-${this.#dice.pick(VERBS)}`, { id: job }),
      request(`job-${this.#dice.pick(VERBS)}`, { id: job }),
    ];
  }

  /** Something that mostly works. */
  #useful(): object {
    const { pick } = { pick: <T>(list: readonly T[]) => this.#dice.pick(list) };
    // Most of them are there; what is to be added has mostly another name than all of these.
    const some = (live: readonly string[], all: readonly string[]) =>
      live.length > 0 && !this.#dice.oneIn(5) ? pick(live) : pick(all);
    const node = some(this.#live.nodes(), NODES);
    const added = pick(NODES);
    const job = {
      "job-id": this.#dice.oneIn(2) ? pick(JOBS) : some(this.#live.jobs(), JOBS),
      "auto-dismiss": pick([true, false]),
    };
    const speed = { speed: pick([0, 0, 65536, 2 ** 30]) };
    const size = pick([0, 65536, 2 ** 20]);
    const name = pick(STORES);
    const bitmap = { node, name: pick(BITMAPS) };
    const makers: readonly (() => object)[] = [
      () => request("blockdev-add", { driver: "memory", "node-name": added, size }),
      () => request("blockdev-add", { driver: "memory", "node-name": added, name }),
      () =>
        request("blockdev-add", {
          driver: "raw",
          "node-name": added,
          file: some(this.#live.nodes(), NODES),
        }),
      () =>
        request("blockdev-add", {
          driver: "qcow2",
          "node-name": added,
          file: { driver: "memory", name },
          ...pick([{ backing: some(this.#live.nodes(), NODES) }, { backing: null }, {}]),
        }),
      () =>
        request("blockdev-add", {
          driver: "copy-on-read",
          "node-name": added,
          file: some(this.#live.nodes(), NODES),
        }),
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
      () => request("blockdev-snapshot", { node, overlay: some(this.#live.nodes(), NODES) }),
      () => request("block_resize", { "node-name": added, size: 2 ** 20 }),
      () => request("block-stream", { device: node, ...job, ...speed }),
      () => request("block-commit", { device: node, ...job, ...speed }),
      () =>
        request("blockdev-mirror", {
          device: node,
          target: some(this.#live.nodes(), NODES),
          sync: "full",
          ...job,
          ...speed,
        }),
      () =>
        request("blockdev-backup", {
          device: node,
          target: some(this.#live.nodes(), NODES),
          sync: "full",
          ...job,
          ...speed,
        }),
      () => request(`job-${pick(VERBS)}`, { id: some(this.#live.jobs(), JOBS) }),
      () => request("block-job-set-speed", { device: some(this.#live.jobs(), JOBS), ...speed }),
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

/** Four different names. */
function shuffledNodes(dice: Dice) {
  const [base = "", file = "", top = "", other = ""] = NODES.map((name) => ({
    name,
    at: dice.below(1e6),
  }))
    .sort((a, b) => a.at - b.at)
    .map(({ name }) => name);
  return { base, file, top, other };
}

function request(execute: string, args: object): object {
  return { execute, arguments: args };
}
