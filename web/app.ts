/**
 * The page's state, and what its buttons do.
 *
 *   click ──▶ App ──▶ command ──▶ engine ──▶ event, reply ──▶ View ──▶ what is shown
 *
 * A button sends its command and waits for the event like everybody else; what is shown of the
 * engine comes out of `view`. Every action has a place on the page, and its error is shown there.
 */

import { batch, type Signal, signal } from "@preact/signals";
import {
  type DomainEvent,
  flags,
  LIFECYCLE,
  type SharedApi,
  type SharedState,
  type Tab,
} from "../src/domain/client.ts";
import type { Device } from "../src/engine/client.ts";
import { Actions, type Place } from "./actions.ts";
import { Aftermath } from "./aftermath.ts";
import { type DiskEntry, readEntry, type StoreDriver } from "./catalogue.ts";
import { DOMAIN, TARGET } from "./define.ts";
import * as disk from "./disk.ts";
import { type Kept, saveDisk } from "./download.ts";
import type { Job } from "./fold.ts";
import { Images } from "./image-list.ts";
import { blobSources, checkSameFile, templateOfFile } from "./local-file.ts";
import type { QmpLog } from "./log.ts";
import { exists, makeDisk } from "./make-disk.ts";
import * as recovery from "./recovery.ts";
import { DiskError, storeOf } from "./store.ts";
import { fetchTemplate, type Template } from "./template.ts";
import { Vda } from "./vda.ts";
import { View } from "./view.ts";

export const DEFAULT_SPEED = 8 * 2 ** 20;

export type Stage =
  | { readonly kind: "none" }
  /** Something is being done that changes what there is. */
  | { readonly kind: "working"; readonly text: string }
  | { readonly kind: "open"; readonly device: Device; readonly readOnly: boolean }
  /** There is a disk, and it could not be opened. */
  | { readonly kind: "closed" };

export class App {
  readonly actions = new Actions();
  readonly problems = this.actions.problems;
  readonly busy = this.actions.busy;
  readonly tab: Tab;
  readonly client: SharedApi;
  readonly vda: Vda;
  readonly view: View;
  readonly images: Images;
  readonly aftermath: Aftermath;
  /** Who has the disks; undefined: this tab, which cannot share them. */
  readonly sharing: Signal<SharedState | undefined>;
  readonly log: QmpLog;
  readonly store: StoreDriver;
  readonly stage = signal<Stage>({ kind: "working", text: "Looking for a disk" });
  readonly template = signal<Template | undefined>(undefined);
  /** Byte offset of the sector in view: kept while the disk is closed and opened again. */
  readonly sectorOffset = signal(0);

  #entry: DiskEntry | undefined;
  readonly #handedOver = new Set<string>();
  #mustLook = false;

  /** @param store where new disks go */
  constructor(tab: Tab, log: QmpLog, store: StoreDriver, sharing: Signal<SharedState | undefined>) {
    this.tab = tab;
    this.client = tab.client;
    this.vda = new Vda(tab);
    this.view = new View(tab, this.vda);
    this.images = new Images(this, () => this.view.refreshNodes());
    this.aftermath = new Aftermath(tab, this.actions);
    this.view.onNodes = () => this.images.refresh();
    this.view.onJobEnd = () => this.aftermath.lookAgain();
    this.aftermath.onRecovered = async () => {
      if (this.stage.value.kind === "closed") await this.#lookAgain(true);
      else await this.view.refreshNodes();
    };
    this.actions.onDone = () => {
      if (this.#mustLook) void this.#lookAgain(false);
    };
    this.sharing = sharing;
    this.log = log;
    this.store = store;
  }

  /** Opens the disk if there is one. */
  async start(): Promise<void> {
    void this.view.follow();
    this.tab.domains.subscribe((event) => void this.#onDomainEvent(event));
    // What was missed meanwhile.
    this.tab.onHandOver(() => void this.#lookAgain(false));
    await this.#lookAgain(true);
  }

  /**
   * Everything as it is now, whoever has changed it.
   *
   * @param mayStart a disk that is closed is opened; another tab may have its reason to have closed it
   */
  async #lookAgain(mayStart: boolean): Promise<void> {
    // Whatever is under way here may be what is told of; then it is looked at once more.
    this.#mustLook = this.busy.value.has("disk") || this.busy.value.has("tools");
    if (this.#mustLook) return;
    await this.actions.act("disk", async () => {
      this.#entry = await readEntry();
      await this.aftermath.refreshRecovery();
      await this.view.refreshJobs();
      const missing = recovery.missingImage(this.aftermath.recovered.value);
      if (missing) {
        this.stage.value = { kind: "closed" };
        throw new DiskError(recovery.describe(missing));
      }
      if (!mayStart && (await disk.isClosed(this.tab))) this.stage.value = { kind: "closed" };
      else if (await exists(this.tab, this.#entry)) await this.#open(null);
      else if (this.stage.value.kind !== "none") await this.#forgetDisk();
      await this.aftermath.refreshHistory();
      void this.view.poll();
    });
  }

  /** Asks the server what it offers. A page without its server simply has no offer. */
  loadTemplate(): Promise<boolean> {
    return this.actions.act("template", async () => {
      this.template.value = await fetchTemplate();
    });
  }

  /** Makes a disk over the template, opens it and starts to pull the template into it. */
  async tryIt(template: Template): Promise<void> {
    const made = await this.actions.act("disk", async () => {
      // Asks the browser not to clear the disk away when space gets short; it may say no.
      void navigator.storage?.persist?.();
      this.stage.value = { kind: "working", text: "Opening the template" };
      try {
        this.#entry = await makeDisk(this.tab, template, this.store);
      } catch (error) {
        this.stage.value = (await exists(this.tab, await readEntry()))
          ? { kind: "closed" }
          : { kind: "none" };
        throw error;
      }
      await this.#open(false);
    });
    if (made) await this.startStream(DEFAULT_SPEED);
  }

  /** As tryIt(), over a file of the user's. */
  async tryFile(file: File): Promise<void> {
    let template: Template | undefined;
    const isThere = await this.actions.act("disk", async () => {
      template = await templateOfFile(file);
      await this.#handOver(file);
    });
    if (isThere && template !== undefined) await this.tryIt(template);
  }

  /** Opens the disk that is there, now that the file it was made from is there again. */
  reopenWith(file: File): Promise<boolean> {
    return this.actions.act("disk", async () => {
      for (const source of blobSources(this.#entry!.template)) checkSameFile(source, file);
      await this.#handOver(file);
      await this.#bringBack();
      await this.#open(null);
    });
  }

  /** What the user has to pick again for the disk to open, unless it is whole. */
  get wantedFile(): string | undefined {
    const [source] = this.#entry === undefined ? [] : blobSources(this.#entry.template);
    return source?.name;
  }

  /** Opens the disk that is there, for writing. */
  reopen(): Promise<boolean> {
    return this.actions.act("disk", async () => {
      await this.#bringBack();
      // Jobs may be at work on it in another tab: only to let it be written to it has to be closed.
      if (this.stage.value.kind === "open") await this.#close("Opening the disk");
      await this.#open(false);
    });
  }

  /** @throws DiskError if what the disk needs is still not there */
  async #bringBack(): Promise<void> {
    if (!recovery.missingImage(this.aftermath.recovered.value)) return;
    await this.client.execute("x-recovery-retry");
    await this.aftermath.refreshRecovery();
    const missing = recovery.missingImage(this.aftermath.recovered.value);
    if (missing) throw new DiskError(recovery.describe(missing));
  }

  startStream(speed: number): Promise<boolean> {
    return this.actions.act("job", () =>
      this.vda.domain.blockPull(TARGET, speed, flags.BLOCK_PULL.BANDWIDTH_BYTES),
    );
  }

  pause({ id }: Job): Promise<boolean> {
    return this.actions.act("job", () => this.client.execute("job-pause", { id }));
  }

  resume({ id }: Job): Promise<boolean> {
    return this.actions.act("job", () => this.client.execute("job-resume", { id }));
  }

  setSpeed(speed: number): Promise<boolean> {
    return this.actions.act("job", async () => {
      const { BANDWIDTH_BYTES } = flags.BLOCK_JOB_SPEED;
      await this.vda.domain.blockJobSetSpeed(TARGET, speed, BANDWIDTH_BYTES);
      await this.view.refreshJobs();
    });
  }

  cancel(): Promise<boolean> {
    return this.actions.act("job", () => this.vda.domain.blockJobAbort(TARGET));
  }

  /** A call of the domain's; what it has changed is looked up. */
  callVerb(place: Place, call: () => Promise<unknown>): Promise<boolean> {
    return this.actions.act(place, async () => {
      try {
        await call();
      } finally {
        await this.view.refreshNodes();
      }
    });
  }

  /** Lets the engine, and the page, forget an ended job. */
  dismissJob({ id, status }: Job): Promise<boolean> {
    return this.actions.act("jobs", async () => {
      const jobs = status === "concluded" ? await this.client.execute("query-jobs") : [];
      if (jobs.some((job) => job.id === id)) await this.client.execute("job-dismiss", { id });
      this.view.forgetJob(id);
    });
  }

  /**
   * Hands the disk's file to the browser's downloads. The browser reads the file while it saves it,
   * so the disk is opened again for reading only: a write in between would break the download.
   */
  download(): Promise<boolean> {
    return this.actions.act("tools", async () => {
      const wasOpen = this.stage.value.kind === "open";
      const { source } = this.vda.top.value ?? { source: storeOf(this.#entry?.store ?? "opfs") };
      await this.#close("Closing the disk for its download");
      try {
        await saveDisk(this.client, source as Kept);
      } finally {
        if (wasOpen) await this.#open(true);
        else this.stage.value = { kind: "closed" };
      }
    });
  }

  /** Deletes the disk, whatever is under way on it. */
  startOver(): Promise<boolean> {
    return this.actions.act("tools", async () => {
      await recovery.giveUpMissing(this.client, this.aftermath.recovered.value);
      await this.aftermath.refreshRecovery();
      await disk.endAllJobs(this.client);
      await this.#close("Deleting the disk");
      try {
        await disk.removeDisk(this.tab, this.#entry?.store ?? "opfs");
      } catch (error) {
        this.stage.value = { kind: "closed" };
        throw error;
      }
      await this.#forgetDisk();
    });
  }

  async #forgetDisk(): Promise<void> {
    batch(() => {
      this.#entry = undefined;
      this.sectorOffset.value = 0;
      this.view.forgetAll();
      this.vda.info.value = undefined;
      // What the server offers, or why it does not, is as it was.
      const { template } = this.problems.value;
      this.problems.value = template === undefined ? {} : { template };
      this.stage.value = { kind: "none" };
    });
    await this.aftermath.refreshHistory();
  }

  /** Somebody looks at the page, perhaps after a while: what no event tells of may be old. */
  async look(): Promise<void> {
    try {
      await this.view.refreshNodes();
      await this.aftermath.lookAgain();
    } catch (error) {
      this.actions.show("jobs", error);
    }
  }

  /** Makes what was written last a crash: called when the page may be on its way out. */
  async flush(): Promise<void> {
    const stage = this.stage.value;
    if (stage.kind !== "open" || stage.readOnly) return;
    try {
      await stage.device.flush();
    } catch (error) {
      this.actions.show("disk", error);
    }
  }

  /** @param readOnly null: as it was */
  async #open(readOnly: boolean | null): Promise<void> {
    const before = this.stage.value;
    if (before.kind !== "open") this.stage.value = { kind: "working", text: "Opening the disk" };
    try {
      const opened = await disk.openDisk(this.tab, this.#entry, readOnly);
      await this.view.refreshNodes();
      const isSame = before.kind === "open" && before.device.id === opened.device.id;
      if (isSame) await opened.device.close();
      else this.stage.value = { kind: "open", ...opened };
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
      await disk.closeDisk(this.tab);
    } catch (error) {
      this.stage.value = { kind: "closed" };
      throw error;
    }
  }

  /** What this tab, or another one, has done to the domain. */
  async #onDomainEvent(event: DomainEvent): Promise<void> {
    if (event.domain !== DOMAIN) return;
    if (event.event !== "lifecycle") {
      await this.view.refreshNodes().catch((error: unknown) => this.actions.show("verbs", error));
    } else if (event.type !== LIFECYCLE.DEFINED) await this.#lookAgain(false);
  }
}
