/**
 * The worker of `img` in a page: runs command lines one after the other, in an own graph each. Only a
 * dedicated worker has sync access to files in OPFS.
 */

import kernelUrl from "../../build/kernel.wasm?url";
import { SystemClock } from "../base/clock.ts";
import { BlockError } from "../base/errors.ts";
import { Mutex } from "../base/mutex.ts";
import { systemRandom } from "../base/random.ts";
import type { World } from "../block/driver.ts";
import type { MemoryStore } from "../drivers/protocol/memory.ts";
import { MemoryState } from "../drivers/protocol/memory.ts";
import { img } from "../img/img.ts";
import { loadKernel } from "../kernel/kernel.ts";
import { browserHost } from "./img-host.ts";
import type { ImgCancel, ImgMemoryMessage, ImgReply, ImgRunMessage } from "./img-protocol.ts";

/** Bytes of memory that go into a Blob at once. */
const PIECE_BYTES = 4 * 1024 * 1024;

const memory = new Map<string, MemoryStore>();
/** Two runs at once would be in each other's way: a file in OPFS is open once. */
const turns = new Mutex();
const starting = start();

addEventListener("message", ({ data }: MessageEvent<ImgRunMessage | ImgMemoryMessage>) => {
  // Extensions and tools post messages, too.
  if (data?.type === "img-run") answer(data.port, () => run(data));
  else if (data?.type === "img-memory") answer(data.port, () => blobOf(data.name));
});

async function start(): Promise<World> {
  const response = await fetch(kernelUrl);
  if (!response.ok) {
    throw new BlockError("EIO", `Loading ${kernelUrl} failed: HTTP status ${response.status}`);
  }
  const kernel = await loadKernel(await response.arrayBuffer());
  return { clock: new SystemClock(), random: systemRandom(), kernel, trace: {} };
}

async function answer(port: MessagePort, work: () => Promise<ImgReply>): Promise<void> {
  let reply: ImgReply;
  try {
    reply = await work();
  } catch (error) {
    const desc = error instanceof Error ? error.message : String(error);
    const errno = error instanceof BlockError ? error.errno : "EIO";
    reply = { type: "failed", error: { class: "GenericError", desc, errno } };
  }
  port.postMessage(reply);
}

async function run({ argv, files, port }: ImgRunMessage): Promise<ImgReply> {
  const ending = new AbortController();
  port.onmessage = ({ data }: MessageEvent<ImgCancel>) => {
    if (data?.type === "cancel") ending.abort();
  };
  const world = await starting;
  const host = browserHost({
    world,
    files,
    memory,
    signal: ending.signal,
    output: (stream, text) => port.postMessage({ type: "output", stream, text } satisfies ImgReply),
  });
  return { type: "end", status: await turns.run(() => img(argv, host)) };
}

/** @throws BlockError ENOENT */
async function blobOf(name: string): Promise<ImgReply> {
  const store = memory.get(name);
  if (!store) throw new BlockError("ENOENT", `There is nothing in memory by the name '${name}'`);
  return turns.run(async () => {
    const state = new MemoryState(store, true);
    const parts: Blob[] = [];
    for (let at = 0; at < state.getLength(); at += PIECE_BYTES) {
      const piece = new Uint8Array(Math.min(PIECE_BYTES, state.getLength() - at));
      await state.pread(piece, at);
      // A Blob may lie on disk, the piece only in memory.
      parts.push(new Blob([piece]));
    }
    await state.close?.();
    return { type: "blob", blob: new Blob(parts) };
  });
}
