/**
 * What the page knows of the engine: events and replies, folded into one snapshot, and what follows of it.
 *
 * Nothing here changes the engine. How far jobs are has to be asked for, and is for as long as one moves.
 */

import { batch, computed, signal } from "@preact/signals";
import type { Tab } from "../src/domain/client.ts";
import { chainBoxes, imageUnder, isLocal } from "./chain.ts";
import { fold, type Input, isActive, isMoving, isPull, jobOf, NOTHING } from "./fold.ts";
import { type Problem, problemOf } from "./hints.ts";
import { queryNodes } from "./store.ts";
import type { Vda } from "./vda.ts";
import type { QmpEvent } from "./wire.ts";

const POLL_MS = 250;
/** The node list tells how the overlay grows; it changes more slowly than the progress. */
const POLLS_PER_NODE_LIST = 8;

export class View {
  readonly snapshot = signal(NOTHING);
  /** The engine is gone, and with it everything but a reload. */
  readonly fatal = signal<Problem | undefined>(undefined);
  readonly jobs = computed(() => [...this.snapshot.value.jobs.values()]);
  /** The stream that makes the disk whole. */
  readonly job = computed(() => this.jobs.value.findLast(({ id }) => isPull(id)));
  readonly hasActiveJob = computed(() => this.jobs.value.some(isActive));
  readonly #exportNode = signal("");
  /**
   * The image that the page reads and writes, not a job's filter before it: a copy moves it, and so do a
   * commit and an overlay.
   */
  readonly diskNode = computed(() => {
    const name = this.#exportNode.value;
    return imageUnder(this.snapshot.value.nodes, name)?.["node-name"] ?? name;
  });
  readonly boxes = computed(() => chainBoxes(this.snapshot.value.nodes, this.diskNode.value));
  readonly diskBytes = computed(() => this.boxes.value.at(-1)?.virtualSize);
  /** Nothing of the disk is anywhere else. */
  readonly isWhole = computed(() => this.boxes.value.every(isLocal));
  /** Counts how often the disk has become another under the page: what was read of it is old then. */
  readonly diskLoads = signal(0);
  /** The node list has been looked at. */
  onNodes = async () => {};
  /** A job has let go of its nodes. */
  onJobEnd = async () => {};

  readonly #tab: Tab;
  readonly #vda: Vda;
  #isPolling = false;

  constructor(tab: Tab, vda: Vda) {
    this.#tab = tab;
    this.#vda = vda;
  }

  /** Folds events in, as long as there is an engine. */
  async follow(): Promise<void> {
    try {
      for await (const event of this.#tab.client.events()) await this.#onEvent(event);
    } catch (error) {
      this.fatal.value = problemOf(error);
      return;
    }
    this.fatal.value = { text: "The engine has stopped" };
  }

  async #onEvent(event: QmpEvent): Promise<void> {
    // The chain first: whether the disk is whole now is said along with the job's end.
    if (event.event === "BLOCK_JOB_COMPLETED") await this.refreshNodes();
    this.#fold({ kind: "event", event });
    if (jobOf(event) === undefined) return;
    await this.refreshJobs();
    if (isEnd(event)) {
      await this.refreshNodes();
      await this.onJobEnd();
      const type = this.snapshot.value.jobs.get(jobOf(event)!)?.type;
      if (type === "snapshot-load") this.diskLoads.value += 1;
    }
    void this.poll();
  }

  /** Asks how far jobs are, for as long as one moves. */
  async poll(): Promise<void> {
    if (this.#isPolling) return;
    this.#isPolling = true;
    try {
      for (let n = 1; this.jobs.value.some(isMoving); n++) {
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
        await this.refreshJobs();
        if (n % POLLS_PER_NODE_LIST === 0) await this.refreshNodes();
      }
    } catch (error) {
      this.fatal.value = problemOf(error);
    } finally {
      this.#isPolling = false;
    }
  }

  async refreshJobs(): Promise<void> {
    const { client } = this.#tab;
    const [jobs, blockJobs] = await Promise.all([
      client.execute("query-jobs"),
      client.execute("query-block-jobs"),
    ]);
    this.#fold({ kind: "jobs", jobs, blockJobs, nowMs: performance.now() });
  }

  async refreshNodes(): Promise<void> {
    const { client } = this.#tab;
    await this.#vda.refresh();
    const device = this.#vda.info.value?.device;
    const exports = await client.execute("query-block-exports");
    const node = exports.find(({ id }) => id === device)?.["node-name"] ?? "";
    const nodes = await queryNodes(client);
    batch(() => {
      this.#exportNode.value = node;
      this.#fold({ kind: "nodes", nodes });
    });
    await this.onNodes();
  }

  forgetJob(id: string): void {
    this.#fold({ kind: "forget", id });
  }

  forgetAll(): void {
    this.snapshot.value = NOTHING;
  }

  isInChain(node: string): boolean {
    return this.boxes.value.some(({ nodeName }) => nodeName === node);
  }

  #fold(input: Input): void {
    this.snapshot.value = fold(this.snapshot.value, input);
  }
}

/** The job has let go of its nodes. */
function isEnd(event: QmpEvent): boolean {
  return event.event === "JOB_STATUS_CHANGE" && event.data.status === "concluded";
}
