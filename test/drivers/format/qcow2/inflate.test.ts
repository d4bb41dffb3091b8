import { deflateRawSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../../../src/base/random.ts";
import { loadInflater, zstdFrameBytes } from "../../../../src/drivers/format/qcow2/inflate.ts";
import { nodeZlib } from "../../../../src/engine/node-zlib.ts";
import { mixedData } from "../rig.ts";

const data = mixedData(seededRandom(4), 65536);

describe.each([
  ["pako", undefined],
  ["Node's zlib", nodeZlib],
])("zlib by %s", (_, host) => {
  it("takes windows of 32 KiB, and does not look at what follows the stream", async () => {
    const inflate = await loadInflater("zlib", host);
    // Only a far distance can pack the second half of this.
    const far = new Uint8Array(65536);
    seededRandom(5).fill(far.subarray(0, 30_000));
    far.copyWithin(30_000, 0, 30_000);
    for (const [wanted, windowBits] of [
      [far, 15],
      [data, 15],
      [data, 12],
    ] as const) {
      const stream = deflateRawSync(wanted, { windowBits });
      const target = new Uint8Array(65536);
      expect(inflate(Buffer.concat([stream, Buffer.alloc(400, 0xff)]), target)).toBe(true);
      expect(Buffer.compare(target, wanted)).toBe(0);
    }
  });

  it("says no to garbage, to half a stream, and to one that makes too little", async () => {
    const inflate = await loadInflater("zlib", host);
    const stream = deflateRawSync(data);
    const target = new Uint8Array(65536);
    expect(inflate(new Uint8Array(500).fill(0xff), target)).toBe(false);
    expect(inflate(stream.subarray(0, stream.length / 2), target)).toBe(false);
    expect(inflate(deflateRawSync(data.subarray(0, 65535)), target)).toBe(false);
    expect(inflate(new Uint8Array(0), target)).toBe(false);
  });

  it("takes a full cluster from a stream that goes on, or that is cut off behind it", async () => {
    const inflate = await loadInflater("zlib", host);
    const wanted = new Uint8Array(65536);
    seededRandom(6).fill(wanted);
    const longer = deflateRawSync(Buffer.concat([wanted, Buffer.alloc(5000, 1)]));
    for (const stream of [longer, longer.subarray(0, 65536 + 64)]) {
      const target = new Uint8Array(65536);
      expect(inflate(stream, target)).toBe(true);
      expect(Buffer.compare(target, wanted)).toBe(0);
    }
  });
});

describe("zstd", () => {
  // RFC 8878: raw and RLE blocks need no compressor to be written.
  const frame = (blocks: number[][], checksum = false) => [
    ...[0x28, 0xb5, 0x2f, 0xfd, checksum ? 0x04 : 0x00, 0x38],
    ...blocks.flatMap((block, i) => {
      const [kind = 0, size = 0, ...content] = block;
      const header = (size << 3) | (kind << 1) | (i === blocks.length - 1 ? 1 : 0);
      return [header & 255, (header >> 8) & 255, header >> 16, ...content];
    }),
  ];
  const RAW = 0;
  const RLE = 1;

  it("finds where a frame ends, whatever follows", () => {
    const one = frame([
      [RAW, 3, 1, 2, 3],
      [RLE, 100, 9],
    ]);
    expect(zstdFrameBytes(new Uint8Array([...one, 1, 2, 3]))).toBe(one.length);
    expect(zstdFrameBytes(new Uint8Array([...frame([[RLE, 5, 1]], true), 1, 2, 3, 4, 5]))).toBe(
      6 + 4 + 4,
    );
    expect(zstdFrameBytes(new Uint8Array(one.slice(0, -1)))).toBe(0);
    expect(zstdFrameBytes(new Uint8Array(frame([[3, 1, 1]])))).toBe(0);
    expect(zstdFrameBytes(new Uint8Array(100))).toBe(0);
    expect(zstdFrameBytes(new Uint8Array(0))).toBe(0);
  });

  it("a cluster may be made of several frames, with other data behind them", async () => {
    const inflate = await loadInflater("zstd", undefined);
    const packed = [
      ...frame([[RLE, 300, 7]]),
      ...frame([
        [RAW, 4, 1, 2, 3, 4],
        [RLE, 208, 5],
      ]),
    ];
    const target = new Uint8Array(512);
    expect(inflate(new Uint8Array([...packed, 0x28, 0xb5, 0x2f]), target)).toBe(true);
    expect([...target.subarray(298, 306)]).toEqual([7, 7, 1, 2, 3, 4, 5, 5]);
  });

  it("says no to too little, to too much, to broken frames, and to frames without content", async () => {
    const inflate = await loadInflater("zstd", undefined);
    const target = new Uint8Array(512);
    const no = (bytes: number[]) => expect(inflate(new Uint8Array(bytes), target)).toBe(false);
    no(frame([[RLE, 511, 7]]));
    no([...frame([[RLE, 511, 7]]), ...frame([[RLE, 2, 7]])]);
    no([...frame([[RLE, 0, 7]]), ...frame([[RLE, 512, 7]])]);
    no(frame([[2, 20, ...new Array<number>(20).fill(0xff)]]));
    no([0x28, 0xb5, 0x2f, 0xfd]);
  });
});
