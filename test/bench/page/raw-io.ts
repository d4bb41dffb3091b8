/**
 * The references: the same bytes moved by nothing but the platform's own calls. What the engine
 * adds to these loops (formats, graph, job) is what the bench measures.
 */

import { KiB, MiB } from "../../../src/base/bytes.ts";
import { removeOpfs } from "../../../src/drivers/protocol/opfs.ts";

/** The directory in OPFS that the engine's own driver uses, so that both are on one store. */
const DIRECTORY = "blocktab";
const COMPARE_BYTES = 1 * MiB;
/** As browsers do it best over one HTTP/1.1 server: a few requests at a time. */
const FETCH_BYTES = 512 * KiB;
const FETCHES_IN_FLIGHT = 6;

export interface Handle {
  read(buf: Uint8Array, options: { at: number }): number;
  write(buf: Uint8Array, options: { at: number }): number;
  getSize(): number;
  truncate(length: number): void;
  flush(): void;
  close(): void;
}

/** Time and bytes of one run. */
export interface Timed {
  readonly ms: number;
  readonly bytes: number;
}

/** Copies a file of OPFS into a new one, piece by piece, with one flush at the end. */
export async function copyFile(argument: {
  source: string;
  target: string;
  pieceBytes: number;
}): Promise<Timed> {
  const { pieceBytes } = argument;
  await removeFile(argument.target);
  const source = await openFile(argument.source);
  const target = await openFile(argument.target);
  try {
    const bytes = source.getSize();
    const buf = new Uint8Array(pieceBytes);
    const startMs = performance.now();
    for (let at = 0; at < bytes; at += pieceBytes) {
      const piece = buf.subarray(0, Math.min(pieceBytes, bytes - at));
      must(source.read(piece, { at }), piece.length, "read");
      must(target.write(piece, { at }), piece.length, "wrote");
    }
    target.flush();
    const ms = performance.now() - startMs;
    checkSame(source, target);
    return { ms, bytes };
  } finally {
    source.close();
    target.close();
    await removeFile(argument.target);
  }
}

/**
 * Fetches a file by ranges, 6 at a time, into a new file of OPFS, with one flush at the end.
 *
 * @param argument.source the same file in OPFS, to compare with afterwards
 */
export async function fetchToFile(argument: {
  url: string;
  source: string;
  target: string;
}): Promise<Timed> {
  await removeFile(argument.target);
  const url = new URL(argument.url, location.href).href;
  const source = await openFile(argument.source);
  const target = await openFile(argument.target);
  try {
    const bytes = source.getSize();
    let next = 0;
    const fetchSome = async () => {
      while (next < bytes) {
        const at = next;
        next += FETCH_BYTES;
        const last = Math.min(at + FETCH_BYTES, bytes) - 1;
        const response = await fetch(url, {
          headers: { Range: `bytes=${at}-${last}` },
          cache: "no-store",
        });
        must(response.status, 206, "the server answered");
        const piece = new Uint8Array(await response.arrayBuffer());
        must(piece.length, last + 1 - at, "received");
        must(target.write(piece, { at }), piece.length, "wrote");
      }
    };
    const startMs = performance.now();
    await Promise.all(Array.from({ length: FETCHES_IN_FLIGHT }, fetchSome));
    target.flush();
    const ms = performance.now() - startMs;
    checkSame(source, target);
    return { ms, bytes };
  } finally {
    source.close();
    target.close();
    await removeFile(argument.target);
  }
}

/** Puts a file of the server into OPFS. @returns its bytes */
export async function importFile(argument: { url: string; filename: string }): Promise<number> {
  await removeFile(argument.filename);
  const target = await openFile(argument.filename);
  try {
    const response = await fetch(new URL(argument.url, location.href), { cache: "no-store" });
    must(response.status, 200, "the server answered");
    let at = 0;
    const reader = response.body!.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      must(target.write(value, { at }), value.length, "wrote");
      at += value.length;
    }
    must(at, Number(response.headers.get("content-length")), "received");
    target.flush();
    return at;
  } finally {
    target.close();
  }
}

/** Removes a file of OPFS, if it is there. */
export async function removeFile(filename: string): Promise<void> {
  const root = await navigator.storage.getDirectory();
  const directory = await root.getDirectoryHandle(DIRECTORY, { create: true });
  for await (const name of directory.keys()) if (name === filename) await removeOpfs(filename);
}

async function openFile(filename: string): Promise<Handle> {
  const root = await navigator.storage.getDirectory();
  const directory = await root.getDirectoryHandle(DIRECTORY, { create: true });
  const file = await directory.getFileHandle(filename, { create: true });
  // lib.dom leaves out what only workers have.
  return (
    file as unknown as { createSyncAccessHandle(): Promise<Handle> }
  ).createSyncAccessHandle();
}

function checkSame(source: Handle, target: Handle): void {
  const bytes = source.getSize();
  must(target.getSize(), bytes, "the copy's length is");
  const [a, b] = [new Uint8Array(COMPARE_BYTES), new Uint8Array(COMPARE_BYTES)];
  for (let at = 0; at < bytes; at += COMPARE_BYTES) {
    const length = Math.min(COMPARE_BYTES, bytes - at);
    must(source.read(a.subarray(0, length), { at }), length, "read");
    must(target.read(b.subarray(0, length), { at }), length, "read");
    const words = length - (length % 4);
    const left = new Uint32Array(a.buffer, 0, words / 4);
    const right = new Uint32Array(b.buffer, 0, words / 4);
    for (let i = 0; i < left.length; i++) {
      if (left[i] !== right[i]) throw new Error(`The copy differs near byte ${at + i * 4}`);
    }
    for (let i = words; i < length; i++) {
      if (a[i] !== b[i]) throw new Error(`The copy differs at byte ${at + i}`);
    }
  }
}

function must(actual: number, expected: number, what: string): void {
  if (actual !== expected) throw new Error(`Expected ${expected}, but ${what} ${actual}`);
}
