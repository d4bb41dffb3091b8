/**
 * The jobs of a simulation: which there are, what is heard of them, and what their copies must hold.
 */

import { Perm } from "../../src/block/permissions.ts";
import { skipFilters } from "../../src/block/status.ts";
import { BlockJob } from "../../src/blockjob/block-job.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { Job } from "../../src/job/job.ts";
import type { JobStatus } from "../../src/job/status.ts";
import type { ModelDisk } from "./disk.ts";
import { checkGroup, Life, type LifeInit } from "./life.ts";
import type { HeardEvent, Reply } from "./talk.ts";

interface Copy {
  readonly target: string;
  readonly disk: ModelDisk;
  readonly job: string;
}

export class Jobs {
  /** "mirror completed" → how many. */
  readonly ends = new Map<string, number>();
  /** The engine is closing: what nobody has asked for may come from that. */
  isClosing = false;
  readonly #engine: Engine;
  readonly #lives = new Map<string, Life>();
  /** Copies that are done. */
  readonly #copies: Copy[] = [];

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** A job that a command is about to make. Its name must be free. */
  expect(init: LifeInit): Life {
    const life = new Life(init);
    this.#lives.set(init.id, life);
    return life;
  }

  /** The command was not obeyed, or it was. */
  answered(life: Life, reply: Reply): void {
    // An engine that closes answers for commands that are still at it.
    if (!reply.error || this.isClosing) return;
    life.isRefused = true;
    life.onRefused?.();
    if (life.isStarted) throw new Error(`Job ${life.id} runs, but its command was refused`);
  }

  find(id: string): Life | undefined {
    return this.#lives.get(id);
  }

  /** Not gone, as far as anybody can know. */
  get alive(): readonly Life[] {
    return [...this.#lives.values()].filter((life) => !life.isOver);
  }

  /** A name that no job has. */
  isFree(id: string): boolean {
    return this.#lives.get(id)?.isOver ?? true;
  }

  /** Between two steps: what can be seen of the jobs is possible. */
  check(): void {
    for (const job of this.#engine.jobs.all()) this.#checkJob(job);
    for (const [id, life] of this.#lives) {
      life.checkAtRest();
      if (life.isOver) {
        checkGroup(life.group);
        this.#lives.delete(id);
      }
    }
  }

  #checkJob(job: Job): void {
    const life = this.#lives.get(job.id!);
    if (!life) throw new Error(`There is a job ${job.id} that nobody has started`);
    if (job.status !== life.status) {
      throw new Error(`Job ${job.id} is ${job.status}, but has told of ${life.status}`);
    }
    const { current, total } = job.progress;
    if (current < life.offset) throw new Error(`Job ${job.id} went back to ${current}`);
    life.offset = current;
    if (total < current || job.pauseCount < 0) {
      throw new Error(`Job ${job.id}: ${current} of ${total}, ${job.pauseCount} pauses`);
    }
    const isParked = job.status === "paused" || job.status === "standby";
    if (isParked && job.pauseCount === 0) throw new Error(`Job ${job.id} is paused by nobody`);
    if (isParked && job.busy) throw new Error(`Job ${job.id} is paused, and busy`);
    if (job instanceof BlockJob && job.ioStatus !== "ok" && !job.userPaused && !job.completed) {
      throw new Error(`Job ${job.id} goes on with io-status ${job.ioStatus}`);
    }
  }

  hear({ event, data }: HeardEvent): void {
    const id = (data["id"] ?? data["device"]) as string;
    const life = this.#lives.get(id);
    if (event === "BLOCK_EXPORT_DELETED") return;
    if (!life) throw new Error(`${event} of a job ${id} that nobody has started`);
    for (const other of this.#lives.values()) {
      if (other.due && other !== life) throw new Error(`${event} comes before ${other.due}`);
    }
    if (this.isClosing) this.#excuse(life);
    switch (event) {
      case "JOB_STATUS_CHANGE":
        life.move(data["status"] as JobStatus);
        return this.#keepCopy(life);
      case "BLOCK_JOB_READY":
      case "BLOCK_JOB_PENDING":
        return life.told(event);
      case "BLOCK_JOB_COMPLETED":
      case "BLOCK_JOB_CANCELLED":
        life.ended(event, data["error"] as string | undefined);
        return this.#ended(life);
    }
  }

  #excuse(life: Life): void {
    life.group.isCancelAsked = true;
    life.isDismissAsked = true;
  }

  /** A backup is of the moment of its start, a mirror of that of its end; nothing is under way then. */
  #keepCopy(life: Life): void {
    const { guest, device, target, type } = life.init;
    if (device === undefined || (target === undefined && type !== "backup")) return;
    const { status } = life;
    const isMoment = status === (type === "backup" ? "created" : "waiting");
    if (status !== "created" && !isMoment) return;
    // A pivot may have moved the guest elsewhere before the command's turn came.
    const node = this.#engine.graph.findDeviceOrNode(device);
    // While it goes back in time, nobody is told which of the two it is.
    const isOfDisk = node && skipFilters(node) === guest.top && guest.holds === 0;
    life.isOfDisk = !!isOfDisk && (status === "created" || life.isOfDisk);
    if (isMoment && life.isOfDisk) life.copy = guest.model.copy();
  }

  #ended(life: Life): void {
    const { type, target, guest } = life.init;
    const end = `${type} ${life.outcome}`;
    this.ends.set(end, (this.ends.get(end) ?? 0) + 1);
    if (life.outcome !== "completed" || !life.copy || target === undefined) return;
    // Where the guest has moved to the target, it writes there, and checks all of it by itself.
    if (guest.chain.some((node) => node.name === target)) return;
    this.#copies.push({ target, disk: life.copy, job: life.id });
  }

  /** Every finished copy holds what it must. */
  async checkCopies(): Promise<void> {
    for (const { target, disk, job } of this.#copies) {
      const data = await readNode(this.#engine, target, disk.size);
      const at = disk.differs(data, 0);
      if (at < 0) continue;
      throw new Error(
        `${target}, the copy of ${job}, holds ${data[at]} at ${at}, not ${disk.at(at)}`,
      );
    }
  }
}

/** All of an image's bytes, as far as `size`; zeroes where it is shorter. */
export async function readNode({ graph }: Engine, name: string, size: number): Promise<Uint8Array> {
  // What a job has opened for itself is closed by now: its bytes are still in the store.
  const closed = { driver: "qcow2", file: { driver: "weather", name }, backing: null };
  const node = graph.find(name) ?? (await graph.addForUsers(closed));
  const reader = graph.openBackend(node, {
    name: "",
    description: "the checker",
    permissions: { take: Perm.consistentRead, share: Perm.all },
  });
  try {
    const data = new Uint8Array(size);
    await reader.read(data.subarray(0, Math.min(size, reader.length)), 0);
    return data;
  } finally {
    await graph.closeBackend(reader);
  }
}
