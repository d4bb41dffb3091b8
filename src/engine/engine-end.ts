/**
 * How an engine ends in good order, once, in one of two ways:
 *
 *   close()     exports gone ─▶ jobs at rest ─▶ cancelled ─▶ nodes flushed, closed ─▶ record ─▶ clients told
 *   suspend()   commands over ─▶ all at rest ─▶ record sealed as it is ─▶ flushed, closed: the next one goes on
 *
 * Either way, and when neither gets through, the files are closed in the end, and then the journal is let go of.
 */

import { type Clock, sleep } from "../base/clock.ts";
import { BlockError } from "../base/errors.ts";
import type { Graph } from "../block/graph.ts";
import { flush } from "../block/io.ts";
import type { ExportList } from "../export/list.ts";
import type { JobList } from "../job/list.ts";
import type { Monitor } from "../qmp/monitor.ts";
import type { EngineJournal } from "./journal/journal.ts";

/** How long jobs may take to come to rest before they are cancelled at the end. */
const QUIET_MS = 1000;

export interface EngineEndInit {
  readonly graph: Graph;
  readonly jobs: JobList;
  readonly exports: ExportList;
  readonly clock: Clock;
  readonly journal: EngineJournal | null;
  readonly monitors: ReadonlySet<Monitor>;
  /** Raised as soon as nothing that is still waited for will be wanted. */
  readonly closing: AbortController;
  /** From now on every command is answered with `why`. */
  readonly refuse: (why: BlockError) => void;
  /** Nobody is served any more. */
  readonly hangUp: () => void;
  /** What has been left when the engine stopped must go no further. @throws BlockError why it has */
  readonly checkNotStopped: () => void;
  /** What an engine waits for that has stopped may never come. @throws BlockError why it has */
  readonly unlessStopped: <T>(work: Promise<T>) => Promise<T>;
}

export class EngineEnd {
  readonly #init: EngineEndInit;
  #ended: Promise<void> | null = null;

  constructor(init: EngineEndInit) {
    this.#init = init;
  }

  /**
   * An orderly end: cancels all jobs, takes all exports away, flushes and closes all nodes. Goes on
   * where one of these fails, closes the stores of what is left, and then throws the first failure. A second
   * call waits for the first.
   *
   * @throws BlockError of the first node that could not be flushed or closed, or if the engine has
   *   stopped: then nothing is written, and the stores are closed as they are
   */
  close(): Promise<void> {
    this.#ended ??= this.#lettingGo(() => this.#close());
    return this.#ended;
  }

  /**
   * With a journal: an end from which the next engine goes on. Jobs come to rest where they are, everything
   * is flushed, all files are closed; what is on record stays.
   *
   * @throws BlockError of the first node that could not be flushed or closed, or if the engine has stopped:
   *   then nothing is written, and the stores are closed as they are
   */
  suspend(): Promise<void> {
    this.#ended ??= this.#lettingGo(() => this.#suspend());
    return this.#ended;
  }

  /**
   * Whoever comes next needs the files, however this engine ends, and then the journal: not while this one may still
   * have files open, as it may after a bug. The first failure counts.
   */
  async #lettingGo(end: () => Promise<void>): Promise<void> {
    const { graph, journal, closing, unlessStopped } = this.#init;
    const released = async () => journal?.release();
    try {
      await unlessStopped(end());
    } catch (error) {
      closing.abort();
      await graph.letGo().catch(unlessBug);
      await released().catch(unlessBug);
      throw error;
    }
    await released();
  }

  async #close(): Promise<void> {
    const { graph, jobs, exports, journal, monitors, closing, checkNotStopped } = this.#init;
    checkNotStopped();
    this.#init.refuse(new BlockError("ECANCELED", "The engine is closing down"));
    closing.abort();
    const failures: BlockError[] = [];
    const attempt = async (step: () => Promise<void>) => {
      checkNotStopped();
      try {
        await step();
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        failures.push(error);
      }
    };
    const exportsGone = attempt(() => exports.close());
    await this.#quieten(exportsGone);
    checkNotStopped();
    await jobs.cancelAll();
    for (const monitor of monitors) await monitor.idle();
    checkNotStopped();
    // A last command may have started one.
    await jobs.cancelAll();
    await exportsGone;
    // From the top down: closing a node may leave those below it without users.
    const tried = new Set<string>();
    const next = () =>
      graph.nodes.find(
        (node) => node.monitorOwned && node.parents.size === 0 && !tried.has(node.name),
      );
    for (let node = next(); node; node = next()) {
      const { name } = node;
      tried.add(name);
      await attempt(() => graph.remove(name));
    }
    // What could not be closed keeps open what is below it: that must be written all the same.
    for (const node of graph.nodes) if (!node.readOnly) await attempt(() => flush(node));
    await journal?.close();
    this.#init.hangUp();
    if (failures[0]) throw failures[0];
  }

  async #suspend(): Promise<void> {
    const { graph, journal, monitors, closing, checkNotStopped } = this.#init;
    checkNotStopped();
    this.#init.refuse(new BlockError("ECANCELED", "The engine hands over to the next one"));
    const idle = [...monitors].map((monitor) => monitor.idle());
    // The section is never ended: nobody goes on.
    await this.#patiently(Promise.all(idle).then(() => graph.drain(graph.nodes)));
    await journal?.seal();
    checkNotStopped();
    closing.abort();
    await graph.abandon();
  }

  /**
   * Exports go first; then in a last drained section jobs come to rest, and tell so, before they are
   * cancelled, as with QEMU's daemon. A store that hangs does not put off the end: it may be a job's
   * target for which a guest's write waits.
   */
  async #quieten(exportsGone: Promise<void>): Promise<void> {
    const { graph, jobs } = this.#init;
    if (jobs.all().every((job) => job.completed)) return;
    const rest = exportsGone.then(() => graph.drain(graph.nodes));
    await this.#patiently(rest.then((section) => section.end()));
  }

  /** Until it is done, or for as long as an end may be put off. */
  async #patiently(rest: Promise<unknown>): Promise<void> {
    const enough = new AbortController();
    await Promise.race([rest, sleep(this.#init.clock, QUIET_MS, enough.signal).catch(() => {})]);
    enough.abort();
  }
}

/** Something else has failed before. */
function unlessBug(error: unknown): void {
  if (!(error instanceof BlockError)) throw error;
}
