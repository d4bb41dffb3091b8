/**
 * What clients have kept, done again by a new owner: at once where the disk is there. A disk that cannot be
 * opened yet is held: what is kept for it waits, and so does everybody who opens it.
 *
 *   held ──x-recovery-retry brings it back──▶ written again, flushed ──▶ told, and opened for whoever waits
 *     └─── given up (x-recovery-dismiss), or somebody else has it ─────▶ told as lost; opening it fails
 *
 * Clients keep it as well until they are told, as this owner may be lost before.
 */

import { Bell } from "../../base/bell.ts";
import { BlockError } from "../../base/errors.ts";
import type { KeptWrite } from "./kept-writes.ts";
import type { Disks } from "./realm.ts";

/** What is held of an export is durable now, or lost. */
export type OnReleased = (exportId: string, isLost: boolean) => void;

export class WriteAgain {
  readonly #disks: Disks;
  readonly #onReleased: OnReleased;
  /** By export; nothing may have been written to it. */
  readonly #held = new Map<string, KeptWrite[]>();
  /** Of these, those that are being done. */
  readonly #underWay = new Set<string>();
  readonly #lost = new Set<string>();
  readonly #changed = new Bell();

  constructor(disks: Disks, onReleased: OnReleased) {
    this.#disks = disks;
    this.#onReleased = onReleased;
  }

  /** Exports that were held and are lost. */
  get lost(): ReadonlySet<string> {
    return this.#lost;
  }

  /**
   * @param served the last owner before this one: what is of an earlier one was held by it
   * @returns exports of which something is lost
   */
  async begin(kept: readonly KeptWrite[], served: number): Promise<ReadonlySet<string>> {
    for (const id of this.#disks.awaited()) this.#held.set(id, []);
    const lost = new Set<string>();
    const now: KeptWrite[] = [];
    for (const write of kept) {
      const { export: id, epoch } = write;
      const held = this.#held.get(id);
      if (held) held.push(write);
      // Who else writes there may have written what is newer.
      else if (epoch < served && this.#disks.rivals(id).length > 1) lost.add(id);
      else now.push(write);
    }
    return new Set([...lost, ...(await this.#do(now))]);
  }

  /** Something has come back, or has been given up. @param back exports that are there again */
  async recovered(back: readonly string[]): Promise<void> {
    const wanted = back.filter((id) => this.#held.has(id));
    for (const id of wanted) this.#underWay.add(id);
    const isAlone = (id: string) => this.#disks.rivals(id).every((other) => wanted.includes(other));
    const writes = wanted.filter(isAlone).flatMap((id) => this.#held.get(id)!);
    const lost = await this.#do(writes);
    for (const id of wanted) {
      this.#underWay.delete(id);
      this.#release(id, lost.has(id) || !isAlone(id));
    }
    for (const id of [...this.#held.keys()]) this.isHeld(id);
    // Some may be awaited only since begin(): nothing is held of those.
    this.#changed.ring();
  }

  /** Whoever opens the export has to wait(). */
  isHeld(exportId: string): boolean {
    const isAwaited = this.#disks.awaited().includes(exportId) || this.#underWay.has(exportId);
    if (!isAwaited && this.#held.has(exportId)) this.#release(exportId, true);
    return isAwaited;
  }

  /** Until the export is there, or has been given up. @throws BlockError ECANCELED */
  async wait(exportId: string, signal: AbortSignal): Promise<void> {
    while (this.isHeld(exportId)) await this.#changed.rung(signal);
  }

  #release(exportId: string, isGivenUp: boolean): void {
    const isLost = isGivenUp && this.#held.get(exportId)!.length > 0;
    this.#held.delete(exportId);
    if (isLost) this.#lost.add(exportId);
    this.#onReleased(exportId, isLost);
    this.#changed.ring();
  }

  async #do(writes: readonly KeptWrite[]): Promise<ReadonlySet<string>> {
    const lost = new Set<string>();
    const attempt = async (id: string, work: () => Promise<unknown>) => {
      try {
        await work();
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        lost.add(id);
      }
    };
    const inOrder = [...writes].sort((a, b) => a.epoch - b.epoch || a.order - b.order);
    for (const { export: id, offset, bytes, data, mayUnmap } of inOrder) {
      await attempt(id, async () => {
        const disk = this.#disks.writable(id);
        if (data) await disk.write(new Uint8Array(data), offset);
        else await disk.writeZeroes(offset, bytes, { mayUnmap });
      });
    }
    for (const id of new Set(writes.map((write) => write.export))) {
      await attempt(id, async () => this.#disks.writable(id).flush());
    }
    return lost;
  }
}
