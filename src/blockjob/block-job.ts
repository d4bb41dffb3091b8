/**
 * A job that works on nodes: which nodes it holds and what others may not do to them meanwhile, its
 * speed, its error policy, and the BLOCK_JOB_* events (QEMU: blockjob.c, include/block/blockjob.h).
 *
 * To the graph it is a root parent: draining one of its nodes pauses it, and the node counts as
 * quiet when the job has come to a pause point.
 */

import type { Clock } from "../base/clock.ts";
import { assert, BlockError } from "../base/errors.ts";
import { BurstCap, RateLimit } from "../base/rate-limit.ts";
import type { BlockBackend } from "../block/backend.ts";
import type { BlockChild } from "../block/child.ts";
import type { DrainedSection } from "../block/drain.ts";
import type { Graph } from "../block/graph.ts";
import type { BlockNode, OperationBlocker } from "../block/node.ts";
import type { ChildPermissions } from "../block/permissions.ts";
import type { JobCompletion, JobDriver, JobEvent } from "../job/driver.ts";
import { Job } from "../job/job.ts";
import type { JobList } from "../job/list.ts";
import type { JobStatus } from "../job/status.ts";
import { type Debt, sleepOff } from "../job/throttle.ts";
import type { JobTxn } from "../job/txn.ts";
import { checkVerb } from "../job/verbs.ts";
import { actionFor, type ErrorAction, type IoStatus, type OnErrorPolicy } from "./on-error.ts";

/** What a job needs of its engine. */
export interface BlockJobServices {
  readonly graph: Graph;
  readonly jobs: JobList;
  readonly clock: Clock;
  /** Sends a QMP event to all monitors. */
  emit(event: { readonly event: string; readonly data: object }): void;
  /** Without it nobody needs to know. */
  readonly replacing?: Replacing;
}

/**
 * Runs what puts other content in a disk's place than guests have written. What they write meanwhile may have
 * to wait.
 *
 * @throws BlockError if it cannot begin; what `work` throws
 */
export type Replacing = (work: () => Promise<void>) => Promise<void>;

export interface BlockJobInit {
  /** null: an internal job, of which no query and no event tells. */
  readonly id: string | null;
  readonly driver: JobDriver;
  /** For reads, and for everything where there is no other policy. */
  readonly onError: OnErrorPolicy;
  /** For what goes wrong on a target. */
  readonly onTargetError?: OnErrorPolicy | undefined;
  /** The group to end with. */
  readonly txn?: JobTxn | undefined;
  readonly cb?: JobCompletion | undefined;
  /** Members of query-block-jobs that only this type has. */
  readonly info?: (() => object) | undefined;
  /** block-job-change, where the type has something to change. @throws BlockError to refuse */
  readonly change?: ((change: BlockJobChange) => void) | undefined;
  readonly autoFinalize?: boolean | undefined;
  readonly autoDismiss?: boolean | undefined;
}

/** What block-job-change asks for (QEMU: BlockJobChangeOptions). */
export interface BlockJobChange {
  readonly type: string;
  readonly copyMode: "background" | "write-blocking";
}

/** An entry of query-block-jobs (QEMU: BlockJobInfo). */
export interface BlockJobInfo {
  readonly type: string;
  readonly device: string;
  readonly len: number;
  readonly offset: number;
  readonly busy: boolean;
  readonly paused: boolean;
  readonly speed: number;
  readonly "io-status": IoStatus;
  readonly ready: boolean;
  readonly status: JobStatus;
  readonly "auto-finalize": boolean;
  readonly "auto-dismiss": boolean;
  readonly error?: string;
}

/** Lets others have a turn at least this often. */
const SLICE_MS = 5;
/** Waits between tries of what the policy `ignore` has to try again: from .. to, doubling. */
const BACK_OFF_MS = 10;
const BACK_OFF_MAX_MS = 1000;

/** Whose I/O it was. */
export type JobSide = "source" | "target";

export class BlockJob extends Job {
  readonly #services: BlockJobServices;
  readonly #policies: Readonly<Record<JobSide, OnErrorPolicy>>;
  readonly #ownInfo: () => object;
  readonly #ownChange: BlockJobInit["change"];
  readonly #limit = new RateLimit();
  readonly #cap = new BurstCap();
  readonly #debt: Debt = {
    delay: (bytes, nowMs) => {
      const ms = this.#limit.delay(bytes, nowMs);
      return this.speed === 0 ? ms : Math.max(ms, this.#cap.delay(this.speed, nowMs));
    },
  };
  readonly #blocker: OperationBlocker;
  readonly #backends: BlockBackend[] = [];
  readonly #blocked: BlockNode[] = [];
  readonly #frozen: BlockChild[] = [];
  #ioStatus: IoStatus = "ok";
  #sliceEndMs = 0;
  #backOffMs = BACK_OFF_MS;
  /** The job itself is waiting for a drain to begin: it sends nothing down meanwhile. */
  #isDraining = false;

  /** Created, and told so. @throws BlockError EINVAL, EEXIST for the id */
  constructor(services: BlockJobServices, init: BlockJobInit) {
    super({
      id: init.id,
      driver: withUserResume(init.driver),
      clock: services.clock,
      list: services.jobs,
      txn: init.txn,
      cb: init.cb,
      autoFinalize: init.autoFinalize,
      autoDismiss: init.autoDismiss,
      onEvent(event, job) {
        // The first of these comes while the base class is still at work.
        if (event.kind !== "status") (job as BlockJob).#tell(event);
      },
    });
    this.#services = services;
    this.#policies = { source: init.onError, target: init.onTargetError ?? init.onError };
    this.#ownInfo = init.info ?? (() => ({}));
    this.#ownChange = init.change;
    this.#blocker = { reason: `block device is in use by block job: ${this.driver.type}` };
  }

  /** As set; bytes per second, 0 is unlimited. */
  get speed(): number {
    return this.#limit.speed;
  }

  get ioStatus(): IoStatus {
    return this.#ioStatus;
  }

  /**
   * Holds a node until the job's end.
   *
   * @param permissions what the job takes of it and lets others have
   * @throws BlockError EPERM on a conflict
   */
  addNode(node: BlockNode, permissions: ChildPermissions): BlockBackend {
    const backend = this.#services.graph.openBackend(node, {
      name: "",
      description: `job '${this.id}'`,
      permissions,
      onDrain: {
        begin: () => this.pause(),
        isQuiet: () => !this.busy || this.completed || this.#isDraining,
        end: () => this.resume(),
      },
    });
    this.#backends.push(backend);
    return backend;
  }

  /** Lets go of one node before the job's end. */
  async removeNode(backend: BlockBackend): Promise<void> {
    const at = this.#backends.indexOf(backend);
    assert(at !== -1, "a node is let go of once");
    this.#backends.splice(at, 1);
    await this.#services.graph.closeBackend(backend);
  }

  /**
   * Drains nodes, the job's own among them. To be called by the job from within run(), with no
   * request of its own under way; until end() it must not come to a pause point, as it would wait
   * there for itself. run() may return with the section open: who ends it then is prepare, or clean.
   */
  async drain(nodes: readonly BlockNode[]): Promise<DrainedSection> {
    this.#isDraining = true;
    this.#services.graph.ringQuiet();
    try {
      return await this.#services.graph.drain(nodes);
    } finally {
      this.#isDraining = false;
    }
  }

  /** No other operation on the node until the job's end. */
  block(node: BlockNode): void {
    node.blockers.add(this.#blocker);
    this.#blocked.push(node);
  }

  /** The graph must not point this link elsewhere until thaw(). */
  freeze(edge: BlockChild): void {
    edge.frozen++;
    this.#frozen.push(edge);
  }

  thaw(): void {
    for (const edge of this.#frozen.splice(0)) edge.frozen--;
  }

  /** Lets go of all nodes. For the driver's clean(); harmless when called twice. */
  async releaseNodes(): Promise<void> {
    this.thaw();
    for (const node of this.#blocked.splice(0)) node.blockers.delete(this.#blocker);
    for (const backend of this.#backends.splice(0)) {
      await this.close(() => this.#services.graph.closeBackend(backend));
    }
  }

  /**
   * Closes nodes that nobody needs any more, after the job's work. Their stores may fail: too late
   * for the job's result, which does not rest on it, as a job flushes what it answers for. It is told.
   */
  async close(nodes: () => Promise<void>): Promise<void> {
    try {
      await nodes();
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.#tellError(error, "target", "report");
    }
  }

  /**
   * block-job-set-speed. A sleeping job is woken only if it now has less to wait for.
   *
   * @throws BlockError EPERM in a status without speed, EINVAL for a negative one
   */
  setSpeed(bytesPerSecond: number): void {
    checkVerb(this, "set-speed");
    if (bytesPerSecond < 0) {
      throw new BlockError("EINVAL", `Parameter 'speed' expects 0 or more; got ${bytesPerSecond}`);
    }
    const old = this.speed;
    this.#limit.setSpeed(bytesPerSecond);
    if (bytesPerSecond === 0 || (old !== 0 && bytesPerSecond > old)) this.endSleep();
  }

  /**
   * block-job-change.
   *
   * @throws BlockError EPERM in a status without change, or if this type has nothing to change;
   *   EINVAL for another type's change; what the job refuses
   */
  change(change: BlockJobChange): void {
    checkVerb(this, "change");
    const { type } = this.driver;
    if (!this.#ownChange) {
      throw new BlockError(
        "EPERM",
        `Nothing of job '${this.id}' can be changed: its type is ${type}`,
      );
    }
    if (change.type !== type) {
      throw new BlockError("EINVAL", `The type of job '${this.id}' is ${type}, not ${change.type}`);
    }
    this.#ownChange(change);
  }

  /**
   * Between two requests: sleeps off what is owed to the speed limit, lets others have a turn now
   * and then, and stops here while a pause is wanted. Look at `cancelled` afterwards.
   *
   * @param isUrgent see sleepOff(); wake the job with endSleep(). No request may follow such a turn
   */
  async turn(isUrgent?: () => boolean): Promise<void> {
    // Again after a pause: while the job stood still, a limit may have been set.
    do {
      if (this.#isInDebt) {
        await sleepOff(this, this.#debt, isUrgent);
        this.#sliceEndMs = this.clock.now() + SLICE_MS;
      } else if (this.clock.now() >= this.#sliceEndMs) {
        await this.clock.yield();
        this.#sliceEndMs = this.clock.now() + SLICE_MS;
      }
      await this.pausePoint();
    } while (this.#isInDebt && !this.cancelled && !isUrgent?.());
  }

  get #isInDebt(): boolean {
    return this.#debt.delay(0, this.clock.now()) > 0;
  }

  /** Charges the bytes of a request that starts now to the speed limit. */
  charge(bytes: number): void {
    const nowMs = this.clock.now();
    this.#limit.delay(bytes, nowMs);
    if (this.speed !== 0) this.#cap.record(bytes, nowMs);
  }

  /**
   * Waits before a try of what was ignored, longer each time until resetBackOff(): where QEMU tries
   * thousands of times a second. Comes to a pause point; look at `cancelled` afterwards.
   */
  async backOff(): Promise<void> {
    const ms = this.#backOffMs;
    this.#backOffMs = Math.min(ms * 2, BACK_OFF_MAX_MS);
    await this.sleep(ms);
  }

  /** Something went well. */
  resetBackOff(): void {
    this.#backOffMs = BACK_OFF_MS;
  }

  /**
   * Asks the policy about an I/O error and tells the world. With `stop` the job is paused from its
   * next pause point on, until the user resumes it. `ignore` means to go on: what has to be tried
   * again waits for backOff() first.
   *
   * @param side whose policy; the source's covers jobs with one policy for all
   */
  onError(error: BlockError, side: JobSide = "source"): ErrorAction {
    const action = actionFor(this.#policies[side], error);
    this.#tellError(error, side, action);
    if (action === "stop") {
      if (this.#ioStatus === "ok") this.#ioStatus = error.errno === "ENOSPC" ? "nospace" : "failed";
      this.userPause();
    }
    return action;
  }

  /** The user's resume forgives: io-status is ok again. */
  resetIoStatus(): void {
    this.#ioStatus = "ok";
  }

  /** The job's entry of query-block-jobs. */
  info(): BlockJobInfo {
    return {
      type: this.driver.type,
      device: this.id ?? "",
      len: this.progress.total,
      offset: this.progress.current,
      busy: this.busy,
      paused: this.pauseCount > 0,
      speed: this.speed,
      "io-status": this.#ioStatus,
      ready: this.ready,
      status: this.status,
      "auto-finalize": this.autoFinalize,
      "auto-dismiss": this.autoDismiss,
      ...(this.error && { error: this.error.message }),
      ...this.#ownInfo(),
    };
  }

  #tellError(error: BlockError, side: JobSide, action: ErrorAction): void {
    if (this.id === null) return;
    const isRead = side === "source" && (error.at === undefined || error.at.op === "read");
    this.#services.emit({
      event: "BLOCK_JOB_ERROR",
      data: {
        device: this.id,
        operation: isRead ? "read" : "write",
        action,
        // Not QEMU's: a person wants to know which URL, which bytes, and what helps.
        reason: error.message,
        errno: error.errno,
      },
    });
  }

  #tell(event: JobEvent): void {
    if (event.kind === "idle") this.#services.graph.ringQuiet();
    const name = EVENT_NAMES[event.kind];
    if (name === undefined || this.id === null) return;
    const type = this.driver.type;
    const data =
      event.kind === "pending"
        ? { type, id: this.id }
        : {
            type,
            device: this.id,
            len: this.progress.total,
            offset: this.progress.current,
            speed: this.speed,
            ...(event.kind === "finalize-completed" && this.error && { error: this.error.message }),
          };
    this.#services.emit({ event: name, data });
  }
}

const EVENT_NAMES: Readonly<Partial<Record<JobEvent["kind"], string>>> = {
  ready: "BLOCK_JOB_READY",
  pending: "BLOCK_JOB_PENDING",
  "finalize-completed": "BLOCK_JOB_COMPLETED",
  "finalize-cancelled": "BLOCK_JOB_CANCELLED",
};

/** Every block job's io-status is reset when the user resumes it. */
function withUserResume(driver: JobDriver): JobDriver {
  return {
    ...driver,
    userResume(job) {
      (job as BlockJob).resetIoStatus();
      driver.userResume?.(job);
    },
  };
}
