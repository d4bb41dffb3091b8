/**
 * The jobs of a simulation: starts them, asks everything of them at any time, and holds what they
 * tell against the tables: each move, each ending, once.
 */

import type { Random } from "../../src/base/random.ts";
import { Perm } from "../../src/block/permissions.ts";
import { BlockJob } from "../../src/blockjob/block-job.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { Job } from "../../src/job/job.ts";
import { type JobStatus, mayMove } from "../../src/job/status.ts";
import type { ModelDisk } from "./disk.ts";
import type { Guest } from "./guest.ts";
import type { HeardEvent, Talk } from "./talk.ts";

interface Known {
  readonly id: string;
  readonly type: string;
  readonly guest: Guest;
  readonly device?: string;
  /** Node that gets a copy of the whole disk, if one does. */
  readonly target?: string;
  /** The guest's disk stood on `device` when the job was made. */
  isOfDisk?: boolean;
  status: JobStatus;
  /** BLOCK_JOB_COMPLETED or _CANCELLED has been told. */
  ended?: string;
  error?: boolean;
  /** What the target must hold, since a certain moment. */
  copy?: ModelDisk;
  offset: number;
}

const POLICIES = ["report", "ignore", "stop", "enospc"] as const;
const SPEEDS = [0, 0, 0, 1, 4096, 65536, 1048576];
/** Events that a block job tells once at most. */
const ENDS = ["BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"];

export class Jobs {
  /** "mirror completed" → how many. */
  readonly ends = new Map<string, number>();
  readonly #random: Random;
  readonly #known = new Map<string, Known>();
  /** Copies that are done: what each target must hold. */
  readonly #copies: { target: string; copy: ModelDisk; guest: Guest; job: string }[] = [];
  #count = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  async start(talk: Talk, guest: Guest): Promise<void> {
    const starters = [this.#stream, this.#commit, this.#mirror, this.#backup, this.#pair];
    await this.#pick(starters).call(this, talk, guest);
  }

  #common(type: string, guest: Guest, target?: string) {
    const id = `${type}${++this.#count}`;
    const known: Known = { id, type, guest, status: "undefined", offset: 0 };
    const device = guest.chain[0]!.name;
    this.#known.set(id, target === undefined ? known : { ...known, device, target });
    const args: Record<string, unknown> = { "job-id": id, speed: this.#pick(SPEEDS) };
    if (this.#chance(4)) args["auto-finalize"] = false;
    if (this.#chance(4)) args["auto-dismiss"] = false;
    return args;
  }

  #stream(talk: Talk, guest: Guest): void {
    const { chain } = guest;
    const top = this.#random.below(Math.min(2, chain.length));
    const base = top + 1 + this.#random.below(chain.length);
    const args = {
      ...this.#common("stream", guest),
      device: chain[top]!.name,
      "on-error": this.#pick(POLICIES),
      ...(base < chain.length && { "base-node": chain[base]!.name }),
    };
    talk.send("block-stream", args);
  }

  #commit(talk: Talk, guest: Guest): void {
    const { chain } = guest;
    if (chain.length < 2) return;
    const top = this.#random.below(chain.length - 1);
    const base = top + 1 + this.#random.below(chain.length - top - 1);
    const args = {
      ...this.#common("commit", guest),
      device: `disk-${guest.name}`,
      "on-error": this.#pick(POLICIES),
      "base-node": chain[base]!.name,
      ...((top > 0 || this.#chance(2)) && { "top-node": chain[top]!.name }),
    };
    talk.send("block-commit", args);
  }

  async #mirror(talk: Talk, guest: Guest): Promise<void> {
    const target = `t${++this.#count}`;
    const [top, below] = guest.chain;
    const sync = below && this.#chance(3) ? "top" : "full";
    await guest.makeImage(target, guest.size, sync === "top" ? below!.name : null);
    const args = {
      // Who stands on another image changes with that one; only the guest can tell if it is right.
      ...this.#common("mirror", guest, sync === "full" ? target : undefined),
      device: top!.name,
      target,
      sync,
      granularity: 4096,
      "on-source-error": this.#pick(POLICIES),
      "on-target-error": this.#pick(POLICIES),
      ...(this.#chance(2) && { "copy-mode": "write-blocking" }),
      ...(this.#chance(3) && { "buf-size": 8192 }),
    };
    talk.send("blockdev-mirror", args);
  }

  async #backup(talk: Talk, guest: Guest): Promise<void> {
    const target = `t${++this.#count}`;
    await guest.makeImage(target, guest.size, null);
    talk.send("blockdev-backup", this.#backupArgs(guest, target));
  }

  #backupArgs(guest: Guest, target: string): object {
    const sync = this.#chance(6) ? "none" : "full";
    return {
      ...this.#common("backup", guest, sync === "full" ? target : undefined),
      device: guest.chain[0]!.name,
      target,
      sync,
      "on-source-error": this.#pick(POLICIES),
      "on-target-error": this.#pick(POLICIES),
      // What a broken snapshot lacks cannot be made up for: the job fails then.
      ...(this.#chance(2) && { "on-cbw-error": "break-snapshot" }),
    };
  }

  /** Two backups as one transaction. */
  async #pair(talk: Talk, guest: Guest): Promise<void> {
    const targets = [`t${++this.#count}`, `t${++this.#count}`];
    for (const target of targets) await guest.makeImage(target, guest.size, null);
    const grouped = this.#chance(2);
    talk.send("transaction", {
      actions: targets.map((target) => ({
        type: "blockdev-backup",
        data: this.#backupArgs(guest, target),
      })),
      ...(grouped && { properties: { "completion-mode": "grouped" } }),
    });
  }

  /** Any verb on any job, also on those that are gone. */
  verb(talk: Talk): void {
    const alive = [...this.#known.values()].filter(({ status }) => status !== "null");
    const job = alive.length > 0 && !this.#chance(12) ? this.#pick(alive) : undefined;
    const id = job?.id ?? "nobody";
    const speed = this.#pick(SPEEDS);
    const verbs: readonly (readonly [string, object])[] = [
      ["job-pause", { id }],
      ["job-pause", { id }],
      ["job-resume", { id }],
      ["job-resume", { id }],
      ["job-complete", { id }],
      ["job-complete", { id }],
      ["job-finalize", { id }],
      ["job-dismiss", { id }],
      ["job-cancel", { id }],
      ["block-job-cancel", { device: id, force: this.#chance(3) }],
      ["block-job-set-speed", { device: id, speed }],
      ["block-job-set-speed", { device: id, speed }],
      ["block-job-change", { id, type: "mirror", "copy-mode": "write-blocking" }],
    ];
    const [name, args] = this.#pick(verbs);
    talk.send(name, args);
  }

  query(talk: Talk): void {
    talk.send(this.#pick(["query-jobs", "query-block-jobs", "query-named-block-nodes"]), {});
  }

  /** Helps every job to its end, whatever it waits for. */
  urge(talk: Talk, jobs: readonly Job[]): void {
    for (const job of jobs) {
      const id = job.id!;
      if (job.status === "pending") talk.send("job-finalize", { id });
      else if (job.status === "concluded") talk.send("job-dismiss", { id });
      else if (job.userPaused) talk.send("job-resume", { id });
      else if (job.ready) this.#endReady(talk, id);
      if (job instanceof BlockJob && job.speed > 0) {
        talk.send("block-job-set-speed", { device: id, speed: 0 });
      }
      const isEndless = job.driver.type === "backup" && this.#known.get(id)?.target === undefined;
      if (isEndless && job.status === "running") talk.send("job-cancel", { id });
    }
  }

  #endReady(talk: Talk, id: string): void {
    if (this.#chance(2)) talk.send("job-complete", { id });
    else talk.send("block-job-cancel", { device: id });
  }

  /** Between two steps: what can be seen of the jobs is possible. */
  check(jobs: readonly Job[]): void {
    for (const job of jobs) {
      const known = this.#known.get(job.id!);
      if (!known) throw new Error(`There is a job ${job.id} that nobody has started`);
      if (job.status !== known.status) {
        throw new Error(`Job ${job.id} is ${job.status}, but has told of ${known.status}`);
      }
      const { current, total } = job.progress;
      if (current < known.offset) throw new Error(`Job ${job.id} went back to ${current}`);
      known.offset = current;
      if (current < 0 || total < 0 || job.pauseCount < 0) {
        throw new Error(`Job ${job.id}: ${current} of ${total}, ${job.pauseCount} pauses`);
      }
    }
  }

  hear({ event, data }: HeardEvent): void {
    if (event === "JOB_STATUS_CHANGE") this.#hearStatus(data as { id: string; status: JobStatus });
    else if (ENDS.includes(event)) this.#hearEnd(event, data as { device: string });
  }

  #hearStatus({ id, status }: { id: string; status: JobStatus }): void {
    const job = this.#known.get(id);
    if (!job) throw new Error(`Nobody has started a job ${id}`);
    if (!mayMove(job.status, status) || job.status === status) {
      throw new Error(`Job ${id} went from ${job.status} to ${status}`);
    }
    job.status = status;
    if (job.target === undefined) return;
    // A commit may have moved the guest away from the node before the command's turn came.
    if (status === "created") job.isOfDisk = job.guest.chain[0]!.name === job.device;
    if (!job.isOfDisk) return;
    // A backup is of the moment of its start, a mirror of that of its end; nothing is under way then.
    if (job.type === "backup" && status === "created") job.copy = job.guest.model.copy();
    if (job.type === "mirror" && status === "waiting") job.copy = job.guest.model.copy();
  }

  #hearEnd(event: string, data: { device: string; error?: string }): void {
    const job = this.#known.get(data.device);
    if (!job || job.ended !== undefined) throw new Error(`${data.device}: ${event} comes twice`);
    job.ended = event;
    const failed = data.error === undefined ? "completed" : "failed";
    const outcome = event === "BLOCK_JOB_CANCELLED" ? "cancelled" : failed;
    this.ends.set(`${job.type} ${outcome}`, (this.ends.get(`${job.type} ${outcome}`) ?? 0) + 1);
    const { copy, target, guest, id } = job;
    // Where the guest has moved to the target, it writes there, and checks all of it by itself.
    const hasMoved = guest.chain.some((node) => node.name === target);
    if (outcome === "completed" && copy && target !== undefined && !hasMoved) {
      this.#copies.push({ target, copy, guest, job: id });
    }
  }

  /** Every finished copy holds what it must. */
  async checkCopies(engine: Engine): Promise<void> {
    for (const { target, copy, guest, job } of this.#copies) {
      const node = engine.graph.find(target);
      if (!node) continue;
      const reader = engine.graph.openBackend(node, {
        name: "",
        description: "the checker",
        permissions: { take: Perm.consistentRead, share: Perm.all },
      });
      const data = new Uint8Array(guest.size);
      await reader.read(data, 0);
      await engine.graph.closeBackend(reader);
      const at = copy.differs(data, 0);
      if (at < 0) continue;
      throw new Error(
        `${target}, the copy of ${job}, holds ${data[at]} at ${at}, not ${copy.values[at]}`,
      );
    }
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#random.below(list.length)]!;
  }

  #chance(oneIn: number): boolean {
    return this.#random.below(oneIn) === 0;
  }
}
