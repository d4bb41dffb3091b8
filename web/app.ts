/**
 * The page's state, and what its buttons do.
 *
 *   click ──▶ App ──▶ command ──▶ engine ──▶ event, reply ──▶ snapshot ──▶ views
 *
 * A button sends its command and waits for the event like everybody else; what a view shows of the
 * engine comes out of `snapshot`. Every action has a place on the page, and its error is shown there.
 */

import { batch, computed, signal } from "@preact/signals";
import type { Client, Device } from "../src/engine/client.ts";
import { type DiskEntry, readEntry, type StoreDriver } from "./catalogue.ts";
import { chainBoxes, imageUnder, isLocal } from "./chain.ts";
import * as disk from "./disk.ts";
import { saveDisk } from "./download.ts";
import {
  fold,
  type Input,
  isActive,
  isMoving,
  type Job,
  jobOf,
  NOTHING,
  STREAM_ID,
} from "./fold.ts";
import { type Problem, problemOf } from "./hints.ts";
import type { StoredImage } from "./images.ts";
import * as images from "./images.ts";
import { blobSources, checkSameFile, templateOfFile } from "./local-file.ts";
import type { QmpLog } from "./log.ts";
import { fetchTemplate, type Template } from "./template.ts";
import type { QmpEvent } from "./wire.ts";

export const DEFAULT_SPEED = 8 * 2 ** 20;
const POLL_MS = 250;
/** The node list tells how the overlay grows; it changes more slowly than the progress. */
const POLLS_PER_NODE_LIST = 8;

/** Where on the page an action was started, and its error is shown. */
export type Place = "template" | "disk" | "job" | "sector" | "verify" | "tools" | "jobs" | "images";

export type Stage =
  | { readonly kind: "none" }
  /** Something is being done that changes what there is. */
  | { readonly kind: "working"; readonly text: string }
  | { readonly kind: "open"; readonly device: Device; readonly readOnly: boolean }
  /** There is a disk, and it could not be opened. */
  | { readonly kind: "closed" };

export class App {
  readonly client: Client;
  readonly log: QmpLog;
  readonly store: StoreDriver;
  readonly stage = signal<Stage>({ kind: "working", text: "Looking for a disk" });
  readonly snapshot = signal(NOTHING);
  readonly template = signal<Template | undefined>(undefined);
  readonly problems = signal<Readonly<Partial<Record<Place, Problem>>>>({});
  readonly busy = signal<ReadonlySet<Place>>(new Set());
  /** Byte offset of the sector in view: kept while the disk is closed and opened again. */
  readonly sectorOffset = signal(0);
  /** The engine is gone, and with it everything but a reload. */
  readonly fatal = signal<Problem | undefined>(undefined);

  /** The page's own stream. */
  readonly job = computed(() => this.snapshot.value.jobs.get(STREAM_ID));
  readonly jobs = computed(() => [...this.snapshot.value.jobs.values()]);
  readonly hasActiveJob = computed(() => this.jobs.value.some(isActive));
  readonly #exportNode = signal(disk.NODE);
  /**
   * The image that the page reads and writes, not a job's filter before it: a mirror moves it, and
   * so do a commit and an overlay.
   */
  readonly diskNode = computed(() => {
    const name = this.#exportNode.value;
    return imageUnder(this.snapshot.value.nodes, name)?.["node-name"] ?? name;
  });
  readonly hasMoved = computed(() => this.diskNode.value !== disk.NODE);
  readonly boxes = computed(() => chainBoxes(this.snapshot.value.nodes, this.diskNode.value));
  readonly diskBytes = computed(() => this.boxes.value.at(-1)?.virtualSize);
  /** Files in this browser beside the disk. */
  readonly images = signal<readonly StoredImage[]>([]);
  /** Nothing of the disk is anywhere else. */
  readonly isWhole = computed(() => this.boxes.value.every(isLocal));
  /** Counts how often the disk has become another under the page: what was read of it is old then. */
  readonly diskLoads = signal(0);

  #entry: DiskEntry | undefined;
  readonly #handedOver = new Set<string>();
  #isPolling = false;

  /** @param store where new disks go */
  constructor(client: Client, log: QmpLog, store: StoreDriver) {
    this.client = client;
    this.log = log;
    this.store = store;
  }

  /** Opens the disk if there is one. */
  async start(): Promise<void> {
    void this.#follow();
    await this.act("disk", async () => {
      this.#entry = await readEntry();
      if (await disk.exists(this.client, this.#entry)) await this.#open(false);
      else this.stage.value = { kind: "none" };
    });
  }

  /** Asks the server what it offers. A page without its server simply has no offer. */
  loadTemplate(): Promise<boolean> {
    return this.act("template", async () => {
      this.template.value = await fetchTemplate();
    });
  }

  /** Makes a disk over the template, opens it and starts to pull the template into it. */
  async tryIt(template: Template): Promise<void> {
    const made = await this.act("disk", async () => {
      // Asks the browser not to clear the disk away when space gets short; it may say no.
      void navigator.storage?.persist?.();
      this.stage.value = { kind: "working", text: "Opening the template" };
      try {
        this.#entry = await disk.makeDisk(this.client, template, this.store);
      } catch (error) {
        this.stage.value = { kind: "none" };
        throw error;
      }
      await this.#open(false);
    });
    if (made) await this.startStream(DEFAULT_SPEED);
  }

  /** As tryIt(), over a file of the user's. */
  async tryFile(file: File): Promise<void> {
    let template: Template | undefined;
    const isThere = await this.act("disk", async () => {
      template = await templateOfFile(file);
      await this.#handOver(file);
    });
    if (isThere && template !== undefined) await this.tryIt(template);
  }

  /** Opens the disk that is there, now that the file it was made from is there again. */
  reopenWith(file: File): Promise<boolean> {
    return this.act("disk", async () => {
      for (const source of blobSources(this.#entry!.template)) checkSameFile(source, file);
      await this.#handOver(file);
      await this.#open(false);
    });
  }

  /** What the user has to pick again for the disk to open, unless it is whole. */
  get wantedFile(): string | undefined {
    const [source] = this.#entry === undefined ? [] : blobSources(this.#entry.template);
    return source?.name;
  }

  /** Opens the disk that is there, for writing. */
  reopen(): Promise<boolean> {
    return this.act("disk", async () => {
      await this.#close("Opening the disk");
      await this.#open(false);
    });
  }

  startStream(speed: number): Promise<boolean> {
    return this.act("job", () => disk.startStream(this.client, speed));
  }

  pause(): Promise<boolean> {
    return this.act("job", () => this.client.execute("job-pause", { id: STREAM_ID }));
  }

  resume(): Promise<boolean> {
    return this.act("job", () => this.client.execute("job-resume", { id: STREAM_ID }));
  }

  setSpeed(speed: number): Promise<boolean> {
    return this.act("job", async () => {
      await this.client.execute("block-job-set-speed", { device: STREAM_ID, speed });
      await this.#refreshJobs();
    });
  }

  cancel(): Promise<boolean> {
    return this.act("job", () => disk.cancelStream(this.client));
  }

  /** Lets the engine, and the page, forget an ended job. */
  dismissJob({ id, status }: Job): Promise<boolean> {
    return this.act("jobs", async () => {
      const jobs = status === "concluded" ? await this.client.execute("query-jobs") : [];
      if (jobs.some((job) => job.id === id)) await this.client.execute("job-dismiss", { id });
      this.#fold({ kind: "forget", id });
    });
  }

  isInChain(node: string): boolean {
    return this.boxes.value.some(({ nodeName }) => nodeName === node);
  }

  makeImage(filename: string, bytes: number): Promise<boolean> {
    return this.#actOnImages(() => images.makeImage(this.client, filename, bytes));
  }

  /** Makes an image and puts it over the disk: from then on it takes what is written. */
  makeOverlay(filename: string): Promise<boolean> {
    return this.#actOnImages(async () => {
      const below = this.boxes.value.at(-1)!;
      const { name: label, format, virtualSize } = below;
      await images.makeImage(this.client, filename, virtualSize, { label, format });
      await images.putOver(this.client, images.nodeNameOf(filename), below.nodeName);
    });
  }

  /** Puts an image over the disk that was there before the page was closed. */
  putOver(node: string): Promise<boolean> {
    return this.#actOnImages(() => images.putOver(this.client, node, this.diskNode.value));
  }

  openImage(filename: string): Promise<boolean> {
    return this.#actOnImages(() => images.openImage(this.client, filename));
  }

  closeImage(node: string): Promise<boolean> {
    return this.#actOnImages(() => images.closeImage(this.client, node));
  }

  downloadImage(filename: string): Promise<boolean> {
    return this.#actOnImages(() => images.downloadImage(this.client, filename));
  }

  removeImage(filename: string): Promise<boolean> {
    return this.#actOnImages(() => this.client.removeFile(filename));
  }

  #actOnImages(action: () => Promise<unknown>): Promise<boolean> {
    return this.act("images", async () => {
      try {
        await action();
      } finally {
        await this.#refreshNodes();
      }
    });
  }

  /**
   * Hands the disk's file to the browser's downloads. The browser reads the file while it saves it,
   * so the disk is opened again for reading only: a write in between would break the download.
   */
  download(): Promise<boolean> {
    return this.act("tools", async () => {
      const wasOpen = this.stage.value.kind === "open";
      await this.#close("Closing the disk for its download");
      try {
        await saveDisk(this.client, this.#entry?.store ?? "opfs");
      } finally {
        if (wasOpen) await this.#open(true);
        else this.stage.value = { kind: "closed" };
      }
    });
  }

  /** Deletes the disk, whatever is under way on it. */
  startOver(): Promise<boolean> {
    return this.act("tools", async () => {
      await disk.endAllJobs(this.client);
      await this.#close("Deleting the disk");
      try {
        await disk.removeDisk(this.client, this.#entry?.store ?? "opfs");
      } catch (error) {
        this.stage.value = { kind: "closed" };
        throw error;
      }
      batch(() => {
        this.#entry = undefined;
        this.sectorOffset.value = 0;
        this.snapshot.value = NOTHING;
        // What the server offers, or why it does not, is as it was.
        const { template } = this.problems.value;
        this.problems.value = template === undefined ? {} : { template };
        this.stage.value = { kind: "none" };
      });
    });
  }

  /** Makes what was written last a crash: called when the page may be on its way out. */
  async flush(): Promise<void> {
    const stage = this.stage.value;
    if (stage.kind !== "open" || stage.readOnly) return;
    try {
      await stage.device.flush();
    } catch (error) {
      this.#show("disk", error);
    }
  }

  /**
   * Runs what a button does. One action per place at a time.
   *
   * @returns whether it was done; if not, its error is shown at the place
   */
  async act(place: Place, action: () => Promise<unknown>): Promise<boolean> {
    if (this.busy.value.has(place)) return false;
    const { [place]: _old, ...others } = this.problems.value;
    batch(() => {
      this.problems.value = others;
      this.busy.value = new Set([...this.busy.value, place]);
    });
    try {
      await action();
      return true;
    } catch (error) {
      this.#show(place, error);
      return false;
    } finally {
      this.busy.value = new Set([...this.busy.value].filter((other) => other !== place));
    }
  }

  #show(place: Place, error: unknown): void {
    console.error(error);
    this.problems.value = { ...this.problems.value, [place]: problemOf(error) };
  }

  async #open(readOnly: boolean): Promise<void> {
    this.stage.value = { kind: "working", text: "Opening the disk" };
    try {
      const device = await disk.openDisk(this.client, this.#entry, readOnly);
      await this.#refreshNodes();
      this.stage.value = { kind: "open", device, readOnly };
    } catch (error) {
      this.stage.value = { kind: "closed" };
      throw error;
    }
  }

  /** Gives the file to the engine, in the place of one that had its name. */
  async #handOver(file: File): Promise<void> {
    if (this.#handedOver.has(file.name)) await this.client.removeBlob(file.name);
    await this.client.addBlob(file.name, file);
    this.#handedOver.add(file.name);
  }

  async #close(text: string): Promise<void> {
    const before = this.stage.value;
    this.stage.value = { kind: "working", text };
    try {
      // While the disk can still be used if that does not work: the store may be full.
      if (before.kind === "open" && !before.readOnly) await before.device.flush();
    } catch (error) {
      this.stage.value = before;
      throw error;
    }
    try {
      await disk.closeDisk(this.client);
    } catch (error) {
      this.stage.value = { kind: "closed" };
      throw error;
    }
  }

  /** Folds events in, as long as there is an engine. */
  async #follow(): Promise<void> {
    try {
      for await (const event of this.client.events()) await this.#onEvent(event);
    } catch (error) {
      this.fatal.value = problemOf(error);
      return;
    }
    this.fatal.value = { text: "The engine has stopped" };
  }

  async #onEvent(event: QmpEvent): Promise<void> {
    this.#fold({ kind: "event", event });
    if (jobOf(event) === undefined) return;
    await this.#refreshJobs();
    if (isEnd(event)) {
      await this.#refreshNodes();
      const type = this.snapshot.value.jobs.get(jobOf(event)!)?.type;
      if (type === "snapshot-load") this.diskLoads.value += 1;
    }
    void this.#poll();
  }

  /** Asks how far the job is, for as long as it moves. */
  async #poll(): Promise<void> {
    if (this.#isPolling) return;
    this.#isPolling = true;
    try {
      for (let n = 1; this.jobs.value.some(isMoving); n++) {
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
        await this.#refreshJobs();
        if (n % POLLS_PER_NODE_LIST === 0) await this.#refreshNodes();
      }
    } catch (error) {
      this.fatal.value = problemOf(error);
    } finally {
      this.#isPolling = false;
    }
  }

  async #refreshJobs(): Promise<void> {
    const [jobs, blockJobs] = await Promise.all([
      this.client.execute("query-jobs"),
      this.client.execute("query-block-jobs"),
    ]);
    this.#fold({ kind: "jobs", jobs, blockJobs, nowMs: performance.now() });
  }

  async #refreshNodes(): Promise<void> {
    const node = await disk.queryDiskNode(this.client);
    const nodes = await disk.queryNodes(this.client);
    batch(() => {
      this.#exportNode.value = node;
      this.#fold({ kind: "nodes", nodes });
    });
    if (this.store === "opfs") this.images.value = await images.listImages(this.client);
  }

  #fold(input: Input): void {
    this.snapshot.value = fold(this.snapshot.value, input);
  }
}

/** The job has let go of its nodes. */
function isEnd(event: QmpEvent): boolean {
  return event.event === "JOB_STATUS_CHANGE" && event.data.status === "concluded";
}
