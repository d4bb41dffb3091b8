/**
 * A dedicated worker's debugger, through its page's (Chrome DevTools Protocol). Playwright opens no
 * session on a worker, so messages for it are wrapped in messages to the page.
 */

import type { CDPSession, Page } from "playwright";

export interface HeapUsage {
  /** Of JavaScript objects. */
  readonly usedSize: number;
  /** Of what the browser itself holds for them. */
  readonly embedderHeapUsedSize: number;
  /** Of ArrayBuffers, without wasm memory. */
  readonly backingStorageSize: number;
}

interface Answer {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: { readonly message: string };
}

export class WorkerSession {
  readonly #cdp: CDPSession;
  readonly #sessionId: string;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #sent = 0;

  /** @param start makes the worker start; one that is there already is not attached to */
  static async attach(page: Page, start: () => Promise<unknown>): Promise<WorkerSession> {
    const cdp = await page.context().newCDPSession(page);
    const manner = { waitForDebuggerOnStart: false, flatten: false };
    let started = false;
    const attached = new Promise<string>((resolve) => {
      cdp.on("Target.attachedToTarget", ({ sessionId, targetInfo }) => {
        if (started && targetInfo.type === "worker") resolve(sessionId);
      });
    });
    await cdp.send("Target.setAutoAttach", { autoAttach: true, ...manner });
    started = true;
    await start();
    return new WorkerSession(cdp, await attached);
  }

  private constructor(cdp: CDPSession, sessionId: string) {
    this.#cdp = cdp;
    this.#sessionId = sessionId;
    cdp.on("Target.receivedMessageFromTarget", ({ sessionId, message }) => {
      if (sessionId !== this.#sessionId) return;
      const answer = JSON.parse(message) as Answer;
      this.#waiting.get(answer.id)?.(answer);
      this.#waiting.delete(answer.id);
    });
  }

  async send(method: string, params: object = {}): Promise<unknown> {
    const id = ++this.#sent;
    const answered = new Promise<Answer>((resolve) => this.#waiting.set(id, resolve));
    await this.#cdp.send("Target.sendMessageToTarget", {
      sessionId: this.#sessionId,
      message: JSON.stringify({ id, method, params }),
    });
    const { result, error } = await answered;
    if (error) throw new Error(`${method} failed: ${error.message}`);
    return result;
  }

  heapUsage(): Promise<HeapUsage> {
    return this.send("Runtime.getHeapUsage") as Promise<HeapUsage>;
  }

  detach(): Promise<void> {
    return this.#cdp.detach();
  }
}
