/**
 * Watches what jobs send down: never more than they have charged to their speed limit, never more in
 * any second than that limit and one chunk, and nothing while they stand still.
 */

import type { BlockBackend } from "../../src/block/backend.ts";
import { BlockJob } from "../../src/blockjob/block-job.ts";
import type { Engine } from "../../src/engine/engine.ts";

const WINDOW_MS = 1000;

interface Charge {
  readonly atMs: number;
  bytes: number;
  readonly speed: number;
}

interface Account {
  readonly job: BlockJob;
  charged: number;
  sent: number;
  readonly window: Charge[];
}

export class Meter {
  readonly #engine: Engine;
  readonly #accounts = new Map<BlockJob, Account>();
  readonly #isMixed: (id: string) => boolean;
  readonly #isEnding: (id: string) => boolean;

  /**
   * @param isMixed its backends also carry what guests write: a mirror that is write-blocking
   * @param isEnding what it copies now, while guests wait, is one chunk, in as many pieces as it takes
   */
  constructor(engine: Engine, isMixed: (id: string) => boolean, isEnding: (id: string) => boolean) {
    this.#engine = engine;
    this.#isMixed = isMixed;
    this.#isEnding = isEnding;
    const { graph } = engine;
    const open = graph.openBackend.bind(graph);
    graph.openBackend = (node, init) => {
      const backend = open(node, init);
      const [, id] = /^job '(.*)'$/.exec(init.description) ?? [];
      const job = id === undefined ? undefined : engine.jobs.find(id);
      if (job instanceof BlockJob) this.#watch(job, backend);
      return backend;
    };
  }

  #watch(job: BlockJob, backend: BlockBackend): void {
    const account = this.#accountOf(job);
    const count = (bytes: number) => this.#send(account, bytes);
    const { write, writeZeroes, copyUp, read } = backend;
    backend.write = (buf, ...rest) => {
      count(buf.length);
      return write.call(backend, buf, ...rest);
    };
    backend.writeZeroes = (offset, bytes, ...rest) => {
      count(bytes);
      return writeZeroes.call(backend, offset, bytes, ...rest);
    };
    backend.copyUp = (offset, bytes, ...rest) => {
      count(bytes);
      return copyUp.call(backend, offset, bytes, ...rest);
    };
    backend.read = (...args) => {
      this.#checkAwake(account);
      return read.apply(backend, args);
    };
  }

  #accountOf(job: BlockJob): Account {
    const known = this.#accounts.get(job);
    if (known) return known;
    const account: Account = { job, charged: 0, sent: 0, window: [] };
    this.#accounts.set(job, account);
    const charge = job.charge.bind(job);
    job.charge = (bytes) => {
      charge(bytes);
      this.#charge(account, bytes);
    };
    return account;
  }

  #send(account: Account, bytes: number): void {
    if (this.#isMixed(account.job.id!)) return;
    this.#checkAwake(account);
    account.sent += bytes;
    if (account.sent <= account.charged) return;
    throw new Error(
      `Job ${account.job.id} sends ${account.sent} bytes, but has charged ${account.charged}`,
    );
  }

  #checkAwake({ job }: Account): void {
    if (this.#isMixed(job.id!)) return;
    if (job.status === "paused" || job.status === "standby") {
      throw new Error(`Job ${job.id} sends a request while it is ${job.status}`);
    }
  }

  #charge(account: Account, bytes: number): void {
    const { job, window } = account;
    const nowMs = this.#engine.clock.now();
    account.charged += bytes;
    if (job.status === "paused" || job.status === "standby") {
      throw new Error(`Job ${job.id} charges ${bytes} bytes while it is ${job.status}`);
    }
    const last = window.at(-1);
    if (last?.atMs === nowMs && job.ready && this.#isEnding(job.id!)) last.bytes += bytes;
    else window.push({ atMs: nowMs, bytes, speed: job.speed });
    while (window[0]!.atMs <= nowMs - WINDOW_MS) window.shift();
    if (window.some(({ speed }) => speed === 0)) return;
    const sum = window.reduce((total, one) => total + one.bytes, 0);
    const speed = Math.max(...window.map((one) => one.speed));
    const chunk = Math.max(...window.map((one) => one.bytes));
    if (sum <= speed * (WINDOW_MS / 1000) + chunk) return;
    throw new Error(`Job ${job.id} starts ${sum} bytes within a second at ${speed} a second`);
  }
}
