/** The image files in this browser, and what can be done with them. */

import { signal } from "@preact/signals";
import { flags } from "../src/domain/client.ts";
import type { App } from "./app.ts";
import { TARGET } from "./define.ts";
import {
  closeImage,
  downloadImage,
  listImages,
  makeImage,
  openImage,
  type StoredImage,
} from "./images.ts";
import { storeOf } from "./store.ts";

export class Images {
  /** By name. */
  readonly all = signal<readonly StoredImage[]>([]);
  readonly #app: Pick<App, "actions" | "client" | "store" | "vda">;
  readonly #onChanged: () => Promise<void>;
  #looks = 0;

  constructor(
    app: Pick<App, "actions" | "client" | "store" | "vda">,
    onChanged: () => Promise<void>,
  ) {
    this.#app = app;
    this.#onChanged = onChanged;
  }

  async refresh(): Promise<void> {
    if (this.#app.store !== "opfs") return;
    const look = ++this.#looks;
    const all = await listImages(this.#app.client);
    // What an older look has found may be gone: it must not come back over this one's.
    if (look === this.#looks) this.all.value = all;
  }

  make(filename: string, bytes: number): Promise<boolean> {
    return this.#act(() => makeImage(this.#app.client, filename, bytes));
  }

  /** Makes an image and puts it over the disk: from then on it takes what is written. */
  makeOverlay(filename: string): Promise<boolean> {
    return this.#act(() =>
      this.#app.vda.domain.snapshotCreate(
        { disks: [{ name: TARGET, source: storeOf(this.#app.store, filename) }] },
        flags.SNAPSHOT_CREATE.DISK_ONLY,
      ),
    );
  }

  open(filename: string): Promise<boolean> {
    return this.#act(() => openImage(this.#app.client, filename));
  }

  close(node: string): Promise<boolean> {
    return this.#act(() => closeImage(this.#app.client, node));
  }

  download(filename: string): Promise<boolean> {
    return this.#act(() => downloadImage(this.#app.client, filename));
  }

  remove(filename: string): Promise<boolean> {
    return this.#act(() => this.#app.client.removeFile(filename));
  }

  #act(action: () => Promise<unknown>): Promise<boolean> {
    return this.#app.actions.act("images", async () => {
      try {
        await action();
      } finally {
        await this.#onChanged();
      }
    });
  }
}
