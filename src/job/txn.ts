/**
 * Jobs that end together: all succeed, or none does. Every job is in exactly one group, most are
 * alone in theirs.
 *
 *   open ──▶ finalizing ──▶ (empty)     all prepared, then each: commit, clean, concluded
 *     │           │
 *     └───────────┴──▶ aborting         one failed or was cancelled: all roll back
 *
 * Members are visited newest first, which shows in the order of events. Where QEMU (job.c) spins in
 * a nested event loop until a member has wound down, here it is awaited; meanwhile the phase keeps
 * everybody else's hands off. Members that never started do not need to wind down: they roll back in
 * their turn, so no group waits for somebody who never comes.
 */

import { assert, BlockError } from "../base/errors.ts";
import type { Job } from "./job.ts";

export class JobTxn {
  /** Newest first. */
  readonly #members: Job[] = [];
  #phase: "open" | "finalizing" | "aborting" = "open";

  get members(): readonly Job[] {
    return this.#members;
  }

  /**
   * open        its members are at work, waiting or pending
   * finalizing  past the point where a cancel could be heard
   * aborting    one member failed or was cancelled, all end
   */
  get phase(): "open" | "finalizing" | "aborting" {
    return this.#phase;
  }

  /**
   * Whether one more may join: all members are made before the first one starts, or that one might
   * end without the rest.
   *
   * @throws BlockError ECANCELED if the group has ended already, by a cancel
   */
  checkOpen(): void {
    if (this.#phase !== "open") {
      throw new BlockError("ECANCELED", "The transaction has ended; no job can join it any more");
    }
    assert(!this.#members.some((member) => member.started), "a group is whole before it starts");
  }

  /** For Job's constructor. */
  add(job: Job): void {
    this.checkOpen();
    this.#members.unshift(job);
  }

  /** For Job: it has ended. */
  remove(job: Job): void {
    const at = this.#members.indexOf(job);
    assert(at !== -1, "a job leaves its group once");
    this.#members.splice(at, 1);
  }

  /** A member's run ended well. The last one to arrive takes the group on. */
  async arrived(job: Job): Promise<void> {
    job.becomeWaiting();
    await this.#goOnIfAllArrived();
  }

  /** A member that could not be set up has left; the others may have waited for it alone. */
  async withdrawn(): Promise<void> {
    await this.#goOnIfAllArrived();
  }

  /**
   * Prepares all members and commits all, or aborts all at the first that cannot be prepared.
   * Resolves when the group has ended, either way.
   */
  async finalize(): Promise<void> {
    assert(this.#isOpen(), "a group is finalized once");
    assert(
      this.#members.every((member) => member.status === "pending"),
      "all of the group is pending when it is finalized",
    );
    this.#phase = "finalizing";
    for (const member of [...this.#members]) {
      await member.prepare();
      if (member.error) return this.#abortAll(member);
    }
    await this.#endAll();
  }

  /**
   * Ends all members by force on account of one. Resolves when the group has ended; at once if
   * somebody else is already at it.
   *
   * @param cause completed, or never started; its own result stands
   */
  async abort(cause: Job): Promise<void> {
    if (!this.#isOpen()) return;
    await this.#abortAll(cause);
  }

  async #goOnIfAllArrived(): Promise<void> {
    // Here and below: whoever heard of the new status may have cancelled.
    if (!this.#isOpen() || this.#members.length === 0) return;
    // Not "completed": one that is aborting has yet to take the group with it.
    if (!this.#members.every((member) => member.status === "waiting")) return;
    for (const member of [...this.#members]) {
      member.becomePending();
      if (!this.#isOpen()) return;
    }
    if (this.#members.every((member) => member.autoFinalize)) await this.finalize();
  }

  async #abortAll(cause: Job): Promise<void> {
    this.#phase = "aborting";
    const others = this.#members.filter((member) => member !== cause);
    for (const member of others) member.requestCancel(true);
    for (const member of others) member.enter();
    await this.#endAll();
  }

  async #endAll(): Promise<void> {
    while (this.#members.length > 0) {
      const newest = this.#members[0]!;
      if (newest.started && !newest.completed) await newest.runEnded;
      await newest.end();
    }
  }

  #isOpen(): boolean {
    return this.#phase === "open";
  }
}
