/**
 * The bench's page: hands calls of the bench on Node to the worker, where OPFS and the engine are.
 *
 *   Node ── page.evaluate ──▶ window.bench.call(name, argument) ── port ──▶ worker.ts
 */

import type { Call, Reply } from "./worker.ts";

export interface BenchPage {
  /** Resolves with what the operation of worker.ts returns; rejects with its error's text. */
  call(name: string, argument: unknown): Promise<unknown>;
  /** A new worker, with nothing of the old one's heap. */
  restart(): void;
}

declare global {
  interface Window {
    bench: BenchPage;
  }
}

let worker = startWorker();

window.bench = {
  call(name, argument) {
    return new Promise((resolve, reject) => {
      const { port1, port2 } = new MessageChannel();
      const end = () => {
        worker.removeEventListener("error", onCrash);
        port1.close();
      };
      const onCrash = (event: ErrorEvent) => {
        end();
        reject(new Error(`The bench's worker has crashed: ${event.message}`));
      };
      worker.addEventListener("error", onCrash);
      port1.onmessage = ({ data }: MessageEvent<Reply>) => {
        end();
        if ("error" in data) reject(new Error(data.error));
        else resolve(data.result);
      };
      const call: Call = { name, argument, port: port2 };
      worker.postMessage(call, [port2]);
    });
  },

  restart() {
    worker.terminate();
    worker = startWorker();
  },
};

function startWorker(): Worker {
  return new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "bench" });
}
