/**
 * How long tasks of a page's main thread had the processor. Long Tasks count the time that passes,
 * and on a busy machine most of that is somebody else's.
 */

import type { CDPSession, Page } from "playwright";

/** Of the trace event format: times in microseconds, `tdur` of the processor. */
interface TraceEvent {
  readonly name: string;
  readonly ph: string;
  readonly pid: number;
  readonly tid: number;
  readonly tdur?: number;
  readonly args: { readonly name?: string };
}

export class Trace {
  readonly #cdp: CDPSession;
  readonly #mainThreads = new Set<string>();
  /** By thread: the most that one of its tasks had, in microseconds. */
  readonly #most = new Map<string, number>();

  static async start(page: Page): Promise<Trace> {
    const cdp = await page.context().newCDPSession(page);
    const trace = new Trace(cdp);
    await cdp.send("Tracing.start", {
      traceConfig: { includedCategories: ["toplevel"], excludedCategories: ["*"] },
    });
    return trace;
  }

  private constructor(cdp: CDPSession) {
    this.#cdp = cdp;
    cdp.on("Tracing.dataCollected", ({ value }) => {
      for (const event of value as unknown as TraceEvent[]) this.#take(event);
    });
  }

  /** @returns milliseconds of processor time of the task with most of it */
  async end(): Promise<number> {
    const complete = new Promise<{ dataLossOccurred: boolean }>((resolve) => {
      this.#cdp.once("Tracing.tracingComplete", resolve);
    });
    await this.#cdp.send("Tracing.end");
    const { dataLossOccurred } = await complete;
    await this.#cdp.detach();
    if (dataLossOccurred) throw new Error("The trace of the page's tasks has holes");
    if (this.#mainThreads.size === 0) throw new Error("The trace names no main thread");
    const most = [...this.#mainThreads].map((thread) => this.#most.get(thread) ?? 0);
    return Math.max(...most) / 1000;
  }

  #take({ name, ph, pid, tid, tdur = 0, args }: TraceEvent): void {
    const thread = `${pid}:${tid}`;
    if (name === "thread_name" && args.name === "CrRendererMain") this.#mainThreads.add(thread);
    if (ph !== "X") return;
    this.#most.set(thread, Math.max(this.#most.get(thread) ?? 0, tdur));
  }
}
