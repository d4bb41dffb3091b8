/**
 * The engine's worker: makes one engine and connects it to every client and every monitor whose
 * ports come in.
 *
 * What nobody caught is our bug, and stops the engine: every client is told why.
 */

import { BlockError } from "../base/errors.ts";
import { createBrowserEngine } from "./browser-engine.ts";
import { errorData } from "./data-port.ts";
import type { Engine } from "./engine.ts";
import type { ConnectMessage, EngineStopped, MonitorMessage } from "./protocol.ts";

let engine: Engine | null = null;
const starting = start();

addEventListener("message", ({ data }: MessageEvent<ConnectMessage | MonitorMessage>) => {
  // Extensions and tools post messages, too.
  if (data?.type === "connect") {
    starting.then(
      (started) => started.connect(data),
      (error) => refuse(data, error),
    );
  } else if (data?.type === "monitor" && data.port instanceof MessagePort) {
    const { port, text } = data;
    starting.then(
      (started) => started.serveMonitor(port, { text: text === true }),
      // There is nobody to greet.
      () => port.close(),
    );
  }
});
addEventListener("unhandledrejection", ({ reason }) => engine?.stop(reason));
addEventListener("error", ({ error, message }) => engine?.stop(error ?? message));

async function start(): Promise<Engine> {
  engine = await createBrowserEngine(new Map());
  return engine;
}

/** There is no engine: says so where the client listens from the start. */
function refuse({ data }: ConnectMessage, error: unknown): void {
  const text = error instanceof Error ? error.message : String(error);
  const why =
    error instanceof BlockError ? error : new BlockError("EIO", `The engine cannot start: ${text}`);
  const message: EngineStopped = { type: "engine-stopped", error: errorData(why) };
  data.postMessage(message);
}
