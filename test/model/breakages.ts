/** Ways to break the engine, each of which the model has to notice: `from` becomes `to`. */

export interface Breakage {
  /** What the engine does wrong then. */
  readonly name: string;
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

export const BREAKAGES: readonly Breakage[] = [
  // src/block
  {
    name: "range lock: readers do not wait for whoever changes a cluster",
    file: "src/block/range-lock.ts",
    from: "if (overlaps && (other.exclusive || range.exclusive)) return true;",
    to: "if (overlaps && other.exclusive && range.exclusive) return true;",
  },
  {
    name: "drain: does not wait for devices and jobs",
    file: "src/block/drain.ts",
    from: "!roots.every((root) => root.isQuiet()) || ",
    to: "",
  },
  {
    name: "device: sends requests down into a drained section",
    file: "src/block/backend.ts",
    from: "while (this.#drained > 0 && !this.#closed)",
    to: "while (this.#drained > 1 && !this.#closed)",
  },
  {
    name: "permissions: conflicts are overlooked",
    file: "src/block/permission-plan.ts",
    from: "if (user === other || refused === 0) continue;",
    to: "if (user === other || refused !== 99) continue;",
  },
  {
    name: "bitmaps: discards are not recorded",
    file: "src/block/io.ts",
    from: 'return writing(node, body, bodyBytes, options, "unmap", () =>',
    to: 'return changing(node, body, bodyBytes, options, "unmap", () =>',
  },
  {
    name: "bitmaps: failed writes are not recorded",
    file: "src/block/request.ts",
    from: "      result = await work();\n    } finally {\n      ended?.();\n",
    to: "      result = await work();\n      ended?.();\n    } finally {\n",
  },
  {
    name: "write: the tail of a new cluster is not taken over",
    file: "src/block/locked.ts",
    from: "await readLocked(node, bounce.subarray(tail), offset + data.length, down);",
    to: "bounce.fill(0, tail);",
  },
  {
    name: "copy-up: a run below that ends within a cluster makes all of it zero",
    file: "src/block/copy-up.ts",
    from: "alignDown(below.bytes, granule)",
    to: "Math.min(bytes, Math.ceil(below.bytes / granule) * granule)",
  },
  {
    name: "bitmap: a successor's marks are lost when it is reclaimed",
    file: "src/block/dirty-bitmap.ts",
    from: "this.#bits.merge(this.#thaw().#bits);",
    to: "this.#thaw();",
  },
  {
    name: "bitmap: an abdicated bitmap forgets that it recorded",
    file: "src/block/dirty-bitmap.ts",
    from: "this.#enabled = successor.#enabled;",
    to: "",
  },
  {
    name: "bitmap: an aborted transaction does not give cleared marks back",
    file: "src/block/bitmap-changes.ts",
    from: "bitmap.clear();\n  return { commit: nothing, abort: () => bitmap.restore(before) };",
    to: "bitmap.clear();\n  void before;\n  return { commit: nothing, abort: nothing };",
  },
  {
    name: "bitmap: an aborted transaction leaves a disabled bitmap disabled",
    file: "src/block/bitmap-changes.ts",
    from: "abort: () => set(before)",
    to: "abort: () => void before",
  },
  {
    name: "block copy: what could not be copied counts as copied",
    file: "src/block/block-copy.ts",
    from: "      this.dirty.set(task.offset, task.bytes);\n      throw error;",
    to: "      throw error;",
  },
  {
    name: "block copy: a write does not wait for a copy that is under way",
    file: "src/block/block-copy.ts",
    from: "if (this.#isUnderWay(start, end)) await this.#taskEnded.rung(signal);",
    to: "if (this.#isUnderWay(start, end)) return;",
  },
  {
    name: "block copy: what is under way is left out of the bitmap of a failed backup",
    file: "src/block/block-copy.ts",
    from: "for (const { offset, bytes } of this.#tasks) bitmap.set(offset, bytes);",
    to: "",
  },
  // src/job
  {
    name: "cancel: does not wake a job that stands still",
    file: "src/job/job.ts",
    from: "if (this.started && !this.deferred) this.enter();",
    to: "if (this.started && !this.deferred) void 0;",
  },
  {
    name: "pause: a job that goes on does not tell",
    file: "src/job/pause.ts",
    from: "      this.#owner.unparked();\n",
    to: "",
  },
  {
    name: "table: a job that waits can be paused",
    file: "src/job/status.ts",
    from: "  pause: ALIVE,",
    to: '  pause: [...ALIVE, "waiting", "pending"],',
  },
  {
    name: "group: one that fails does not take the others with it",
    file: "src/job/txn.ts",
    from: "for (const member of others) member.requestCancel(true);",
    to: "",
  },
  {
    name: "group: is finalized although one is to be finalized by hand",
    file: "src/job/txn.ts",
    from: "if (this.#members.every((member) => member.autoFinalize)) await",
    to: "if (this.#members.some((member) => member.autoFinalize)) await",
  },
  {
    name: "job: tells that it is ready each time it is resumed",
    file: "src/job/job.ts",
    from: 'if (this.ready) this.tell({ kind: "ready" });',
    to: 'if (this.ready) for (let n = 0; n < 2; n++) this.tell({ kind: "ready" });',
  },
  {
    name: "job: is concluded before it tells how it ended",
    file: "src/job/job.ts",
    from: 'this.tell({ kind: this.cancelled ? "finalize-cancelled" : "finalize-completed" });',
    to: 'queueMicrotask(() => this.tell({ kind: "finalize-completed" }));',
  },
  {
    name: "job: does not clean up",
    file: "src/job/job.ts",
    from: "await this.mustNotFail(() => this.#clean());",
    to: "",
  },
  {
    name: "pause point: is passed although somebody drains the job's nodes",
    file: "src/job/pause.ts",
    from: "while (this.#wanted) {\n      // Without one",
    to: "while (this.#wanted && this.#userPaused) {\n      // Without one",
  },
  {
    name: "pause point: does not wait for what is in flight",
    file: "src/job/pause.ts",
    from: "if (this.#owner.quiesce) await this.#owner.quiesce();",
    to: "",
  },
  {
    name: "pause: a drain that ends wakes a job that the user has paused",
    file: "src/job/pause.ts",
    from: "this.#count--;\n    if (this.#parked) this.enter();",
    to: "this.#count = 0;\n    if (this.#parked) this.enter();",
  },
  {
    name: "sleep: is forgotten by its timer",
    file: "src/job/pause.ts",
    from: "this.#timer = this.#owner.clock.setTimer(ms, () => this.enter());",
    to: "this.#timer = this.#owner.clock.setTimer(ms, () => {});",
  },
  // src/base, src/blockjob
  {
    name: "speed: nothing caps a burst",
    file: "src/base/rate-limit.ts",
    from: "if (left <= speed) return atMs + 1000 - nowMs;",
    to: "",
  },
  {
    name: "speed: a limit that is set while the job stands still is overlooked",
    file: "src/blockjob/block-job.ts",
    from: "} while (this.#isInDebt && !this.cancelled && !isUrgent?.());",
    to: "} while (false as boolean);",
  },
  {
    name: "stream, commit: a copy that fails while the disk is looked at is forgotten",
    file: "src/blockjob/linear-copy.ts",
    from: "if (!this.#window.isIdle || this.#window.hasFailed) {",
    to: "if (!this.#window.isIdle) {",
  },
  {
    name: "stream, commit: what has failed is not tried again",
    file: "src/blockjob/linear-copy.ts",
    from: "this.#retry.push({ ...task, isRetry: true });",
    to: "void task;",
  },
  {
    name: "stream, commit: copies are not charged",
    file: "src/blockjob/linear-copy.ts",
    from: "this.#job.charge(this.#cost(task));",
    to: "void this.#cost(task);",
  },
  {
    name: "stream: zeroes of the middle are left out although a base stays below",
    file: "src/blockjob/stream-run.ts",
    from: "isInherited && !(run.zero && base === null)",
    to: "isInherited && !run.zero",
  },
  {
    name: "stream: the header still names the layers that are gone",
    file: "src/blockjob/stream.ts",
    from: "await overlay.state.changeBackingFile?.(...label);",
    to: "void label;",
  },
  {
    name: "commit: zeroes of the merged layers are passed over",
    file: "src/blockjob/commit-run.ts",
    from: 'action: run.zero ? "zero" : "copy"',
    to: 'action: run.zero ? "pass" : "copy"',
  },
  {
    name: "commit: base stays open for writing",
    file: "src/blockjob/commit.ts",
    from: "if (commit.isBaseReadOnly) await protect(graph, plan.base);",
    to: "",
  },
  {
    name: "mirror: what could not be copied is clean",
    file: "src/blockjob/mirror-copies.ts",
    from: "        } catch (error) {\n          dirty.set(offset, bytes);\n          throw error;",
    to: "        } catch (error) {\n          throw error;",
  },
  {
    name: "mirror: dirty bits are cleared after the copy",
    file: "src/blockjob/mirror-copies.ts",
    from: "          await copyRange(this.#disks, offset, bytes, signal, doing);\n",
    to: "          await copyRange(this.#disks, offset, bytes, signal, doing);\n          dirty.take(task);\n",
  },
  {
    name: "mirror: ends without a last look at what is dirty",
    file: "src/blockjob/mirror-run.ts",
    from: "if (!disks.dirty.isClean || copies.hasFailed || job.cancelled) return false;",
    to: "if (job.cancelled) return false;",
  },
  {
    name: "mirror: guests may write between the end and the pivot",
    file: "src/blockjob/mirror-run.ts",
    from: "if (this.section === null) section.end();",
    to: "section.end();",
  },
  {
    name: "mirror, write-blocking: what the target did not take is clean",
    file: "src/blockjob/mirror-filter.ts",
    from: "    } catch (error) {\n      dirty.set(offset, bytes);\n      if (",
    to: "    } catch (error) {\n      if (",
  },
  {
    name: "mirror, write-blocking: discards reach the source alone",
    file: "src/blockjob/mirror-filter.ts",
    from: "      copyRange(this.#disks, offset, bytes, signal, doing),\n",
    to: "      Promise.resolve(void [signal, doing]),\n",
  },
  {
    name: "backup: zero writes of guests are not saved before",
    file: "src/drivers/filter/copy-before-write.ts",
    from: "    await this.#save(offset, bytes, options);\n    await this.#file.writeZeroes(",
    to: "    await this.#file.writeZeroes(",
  },
  {
    name: "backup: only the clusters that a write covers are saved",
    file: "src/drivers/filter/copy-before-write.ts",
    from: "const start = alignDown(wide.offset, clusterSize);\n    const span",
    to: "const start = Math.min(alignUp(offset, clusterSize), offset + bytes);\n    const span",
  },
  {
    name: "past: a write does not wait for those who read the old content",
    file: "src/drivers/filter/copy-before-write.ts",
    from: "const hold = await this.#readers.acquire(start, span, true, options.signal);",
    to: "const hold = await this.#readers.acquire(start, 0, true, options.signal);",
  },
  {
    name: "past: what has been overwritten is still read from the source",
    file: "src/drivers/filter/copy-before-write.ts",
    from: "this.#replaced.set(start, span);",
    to: "",
  },
  {
    name: "backup: a bitmap loses its marks when the job fails",
    file: "src/blockjob/backup.ts",
    from: "else bitmap.reclaim();",
    to: "else bitmap.abdicate();",
  },
  {
    name: "backup, bitmap mode always: what was not copied is forgotten",
    file: "src/blockjob/backup.ts",
    from: "filter.copy.addUncopied(bitmap);",
    to: "void 0;",
  },
  {
    name: "transaction: what was prepared is not taken back",
    file: "src/blockjob/transaction.ts",
    from: 'await step("abort");',
    to: "",
  },
  {
    name: "snapshot: an aborted transaction leaves the overlay in place",
    file: "src/blockjob/external-snapshot.ts",
    from: "this.#graph.replaceNode(overlay, node);\n",
    to: "",
  },
  // qcow2
  {
    name: "qcow2: the tail of a new cluster is not taken over",
    file: "src/drivers/format/qcow2/allocate.ts",
    from: "const ownEnd = holdsTail ? end : alignUp(end, subclusterBytes);",
    to: "const ownEnd = holdsTail ? end : end;",
  },
  {
    name: "qcow2: a freed cluster leaks",
    file: "src/drivers/format/qcow2/epoch.ts",
    from: "else this.#freed.push({ index, count, discards });",
    to: "",
  },
  {
    name: "qcow2: clusters shared with a snapshot are written in place",
    file: "src/drivers/format/qcow2/allocate.ts",
    from: "entry.copied ? entry.host : -1",
    to: "entry.host",
  },
  {
    name: "qcow2: the first subclusters of a cluster that moves are left behind",
    file: "src/drivers/format/qcow2/allocate.ts",
    from: "const start = Math.min(ownStart, first + keepFrom * subclusterBytes);",
    to: "const start = ownStart + 0 * keepFrom;",
  },
];
