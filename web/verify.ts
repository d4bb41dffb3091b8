/** Reads a whole disk through its export and says what it read as. */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import type { Device } from "../src/engine/client.ts";

/** One read; also what is hashed in one go, some milliseconds of the main thread (measured). */
const READ_BYTES = 256 * 1024;
/** Reads in flight, so that the engine works while the page hashes. */
const READS_AHEAD = 8;

export interface Verdict {
  readonly bytes: number;
  readonly sha256: string;
}

/**
 * @param onProgress told after every read how many bytes are done
 * @throws QmpError of the read that failed, ECANCELED if the signal was raised
 */
export async function verifyDisk(
  device: Device,
  signal: AbortSignal,
  onProgress: (bytes: number) => void,
): Promise<Verdict> {
  const { size } = device;
  const hash = sha256.create();
  const reads: Promise<Uint8Array>[] = [];
  let asked = 0;
  for (let done = 0; done < size; ) {
    while (asked < size && reads.length < READS_AHEAD) {
      const read = device.read(asked, Math.min(READ_BYTES, size - asked), { signal });
      // It is awaited below, in its turn; until then its failure is nobody's surprise.
      read.catch(() => {});
      reads.push(read);
      asked += READ_BYTES;
    }
    const chunk = await reads.shift()!;
    hash.update(chunk);
    done += chunk.length;
    onProgress(done);
    await nextTask();
  }
  return { bytes: size, sha256: bytesToHex(hash.digest()) };
}

/** Lets the page answer clicks and paint: answers that are there already would come in one task. */
function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
