/** The page's disk as the driver of domains tells of it: its chain by path, its block job, its checkpoints. */

import { batch, computed, signal } from "@preact/signals";
import {
  type BlockJobEntry,
  type CheckpointRecord,
  type DiskInfo,
  type Domain,
  DomainError,
  type Tab,
} from "../src/domain/client.ts";
import { TARGET } from "./define.ts";
import { domainOf, findDomain } from "./disk.ts";
import { type Kept, nameOf } from "./download.ts";

export class Vda {
  readonly domain: Domain;
  readonly #tab: Tab;
  /** undefined: there is no disk. */
  readonly info = signal<DiskInfo | undefined>(undefined);
  /** Its block job; the first one of a backup, if there are several. */
  readonly job = signal<BlockJobEntry | undefined>(undefined);
  /** The oldest first. */
  readonly checkpoints = signal<readonly CheckpointRecord[]>([]);
  /** The image that is written to. */
  readonly top = computed(() => this.info.value?.chain[0]);
  readonly filename = computed(() =>
    nameOf((this.top.value?.source ?? {}) as Partial<Kept> as Kept),
  );

  constructor(tab: Tab) {
    this.#tab = tab;
    this.domain = domainOf(tab);
  }

  async refresh(): Promise<void> {
    const { found, jobs, checkpoints } = await this.#look();
    batch(() => {
      this.info.value = found?.disks.find(({ target }) => target === TARGET);
      this.job.value = jobs.find(({ disk }) => disk === TARGET);
      this.checkpoints.value = checkpoints;
    });
  }

  async #look() {
    const nothing = { found: undefined, jobs: [], checkpoints: [] };
    const found = await findDomain(this.#tab);
    if (found === undefined) return nothing;
    try {
      const [jobs, checkpoints] = await Promise.all([
        this.domain.listBlockJobs(),
        this.domain.listAllCheckpoints(),
      ]);
      return { found, jobs, checkpoints };
    } catch (error) {
      // Another tab has deleted it meanwhile.
      if (error instanceof DomainError && error.code === "NO_DOMAIN") return nothing;
      throw error;
    }
  }
}
