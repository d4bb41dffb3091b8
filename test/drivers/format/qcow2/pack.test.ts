import { inflateRawSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../../../src/base/random.ts";
import { loadPacker } from "../../../../src/drivers/format/qcow2/pack.ts";
import { nodeZlib } from "../../../../src/engine/node-zlib.ts";

const CLUSTER = 65536;

describe.each([
  ["pako", undefined],
  ["Node's zlib", nodeZlib],
])("zlib by %s", (_, host) => {
  it("looks no further back than 4 KiB, which is all that QEMU keeps", async () => {
    const pack = await loadPacker("zlib", host);
    // Noise of half bytes packs to a good half; what comes again soon enough to next to nothing.
    const noise = new Uint8Array(8000);
    seededRandom(3).fill(noise);
    const near = repeated(noise.subarray(0, 3500).map((byte) => byte & 15));
    const far = repeated(noise.map((byte) => byte & 15));
    for (const data of [near, far]) {
      const packed = (await pack(data))!;
      // In pieces of 64 bytes nothing but the window is left of what has come out.
      const unpacked = inflateRawSync(packed, { windowBits: 12, chunkSize: 64 });
      expect(Buffer.compare(unpacked, data)).toBe(0);
    }
    expect((await pack(near))!.length).toBeLessThan(CLUSTER / 10);
    expect((await pack(far))!.length).toBeGreaterThan(CLUSTER / 2.5);
  });

  it("leaves what does not get smaller as it is", async () => {
    const pack = await loadPacker("zlib", host);
    const noise = new Uint8Array(CLUSTER);
    seededRandom(4).fill(noise);
    expect(await pack(noise)).toBeNull();
  });
});

function repeated(data: Uint8Array): Uint8Array {
  const all = new Uint8Array(CLUSTER);
  for (let at = 0; at < CLUSTER; at++) all[at] = data[at % data.length]!;
  return all;
}
