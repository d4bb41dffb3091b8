/** The bytes of a disk, from the page's side of the ports. */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { localPorts } from "../../src/engine/local-port.ts";
import { REQUEST_BYTES_MAX, REQUESTS_MAX } from "../../src/engine/protocol.ts";
import { connected, device } from "./world.ts";

describe("a device", () => {
  it("reads what was written, at any offset and length", async () => {
    const SIZE = 3 * REQUEST_BYTES_MAX + 77;
    const { client } = await connected();
    const disk = await device(client, { size: SIZE });
    expect([disk.size, disk.writable]).toEqual([SIZE, true]);
    const model = new Uint8Array(SIZE);
    const range = fc
      .tuple(fc.nat(SIZE), fc.oneof(fc.nat(5000), fc.nat(SIZE)))
      .map(([offset, bytes]) => ({ offset, bytes: Math.min(bytes, SIZE - offset) }));
    const step = fc.record({ range, fill: fc.nat(255), zero: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(step, range, async ({ range: { offset, bytes }, fill, zero }, look) => {
        if (zero) await disk.writeZeroes(offset, bytes);
        else await disk.write(offset, new Uint8Array(bytes).fill(fill));
        model.fill(zero ? 0 : fill, offset, offset + bytes);
        const seen = await disk.read(look.offset, look.bytes);
        expect(Buffer.compare(seen, model.subarray(look.offset, look.offset + look.bytes))).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  it("leaves the buffer that it writes to its owner", async () => {
    const { client } = await connected();
    const disk = await device(client);
    const data = new Uint8Array([1, 2, 3, 4]);
    const written = disk.write(0, data.subarray(1, 3));
    data.fill(9);
    await written;
    expect([...(await disk.read(0, 4))]).toEqual([2, 3, 0, 0]);
  });

  it("refuses what is not within the disk, and what it may not do", async () => {
    const { client, engine } = await connected();
    const disk = await device(client, { size: 1000 });
    const readOnly = await device(client, { id: "ro", writable: false });
    const attempts = [
      disk.read(999, 2),
      disk.read(-1, 1),
      disk.read(0.5, 1),
      disk.write(1000, new Uint8Array(1)),
      disk.writeZeroes(0, 1001),
      disk.read(Number.NaN, 1),
      readOnly.write(0, new Uint8Array(1)),
      readOnly.writeZeroes(0, 1),
      client.openDevice("no-such-export"),
    ];
    const errors = await Promise.all(attempts.map((attempt) => attempt.catch((error) => error)));
    expect(errors.map(({ errno }) => errno)).toEqual([
      ...Array(6).fill("EINVAL"),
      "EACCES",
      "EACCES",
      "ENOENT",
    ]);
    expect(errors.every(({ name, desc }) => name === "QmpError" && desc.length > 10)).toBe(true);
    expect(engine.stopped).toBe(null);
    expect(await disk.read(1000, 0)).toHaveLength(0);
  });

  it("passes on what the store says", async () => {
    const { client, moody } = await connected();
    const disk = await device(client, { driver: "moody" });
    moody.mood = "broken";
    await expect(disk.read(0, 512)).rejects.toMatchObject({ errno: "EIO" });
    await expect(disk.flush()).rejects.toMatchObject({ errno: "EIO" });
    moody.mood = "fine";
    await disk.write(0, new Uint8Array(512).fill(1));
    await disk.flush();
  });

  it("can be given up on", async () => {
    const { client, moody } = await connected();
    const disk = await device(client, { driver: "moody" });
    moody.mood = "stuck";
    const controller = new AbortController();
    const read = disk.read(0, 512, { signal: controller.signal });
    const settled = read.catch((error) => error);
    controller.abort();
    expect(await settled).toMatchObject({ errno: "ECANCELED" });
    const late = disk.read(0, 512, { signal: controller.signal });
    await expect(late).rejects.toMatchObject({ errno: "ECANCELED" });
  });

  it("is closed, and keeps its export in use until then", async () => {
    const { client } = await connected();
    const disk = await device(client);
    const remove = () => client.execute("block-export-del", { id: "d" });
    await expect(remove()).rejects.toMatchObject({ class: "GenericError" });
    await disk.close();
    await expect(disk.read(0, 1)).rejects.toMatchObject({ errno: "EINVAL" });
    await remove();
  });

  it("is gone when its export is taken away by force, stuck or not", async () => {
    const { client, moody } = await connected();
    const disk = await device(client, { driver: "moody" });
    moody.mood = "stuck";
    const stuck = disk.read(0, 512).catch((error) => error);
    await client.execute("block-export-del", { id: "d", mode: "hard" });
    expect(await stuck).toMatchObject({ errno: "ENOMEDIUM" });
    await expect(disk.read(0, 512)).rejects.toMatchObject({ errno: "ENOMEDIUM" });
    moody.mood = "fine";
    await client.execute("blockdev-del", { "node-name": "d-node" });
  });

  it("serves many requests at once, and all of them", async () => {
    const { client } = await connected();
    const disk = await device(client, { size: 1024 });
    await disk.write(
      0,
      Uint8Array.from({ length: 1024 }, (_, index) => index % 251),
    );
    const reads = Array.from({ length: 1000 }, (_, index) => disk.read(index, 1));
    const bytes = (await Promise.all(reads)).map((data) => data[0]);
    expect(bytes).toEqual(Array.from({ length: 1000 }, (_, index) => index % 251));
  });
});

describe("a data port", () => {
  it("answers nonsense with an error, and goes on", async () => {
    const { port, ask } = await bare();
    for (const nonsense of [null, 7, {}, { id: 1 }, { id: 1, request: { op: "format" } }]) {
      expect(await ask(nonsense)).toMatchObject({ type: "failed", error: { errno: "EINVAL" } });
    }
    const data = new Uint8Array(4);
    const wrongs = [
      { op: "read", device: 0, offset: 0, bytes: 1 },
      { op: "write", device: 0, offset: 0, data },
      { op: "add-blob", name: "x", blob: {} },
      { op: "open" },
    ];
    for (const request of wrongs) {
      expect(await ask({ id: 2, request })).toMatchObject({ type: "failed", id: 2 });
    }
    expect(await ask({ id: 3, request: { op: "open", export: "d" } })).toMatchObject({
      type: "done",
      id: 3,
    });
    port.close();
  });

  it("allocates no more than a request's share, whatever is asked for", async () => {
    const { ask } = await bare();
    await ask({ id: 1, request: { op: "open", export: "d" } });
    const tooMuch = { errno: "EINVAL", desc: expect.stringContaining("A request moves at most") };
    for (const bytes of [REQUEST_BYTES_MAX + 1, Number.MAX_SAFE_INTEGER]) {
      const request = { op: "read", device: 0, offset: 0, bytes };
      expect(await ask({ id: 2, request })).toMatchObject({ error: tooMuch });
    }
    const data = new ArrayBuffer(REQUEST_BYTES_MAX + 1);
    const request = { op: "write", device: 0, offset: 0, data };
    expect(await ask({ id: 3, request })).toMatchObject({ error: tooMuch });
  });

  it("has so many requests under way and no more", async () => {
    const { ask, answers, moody, port } = await bare();
    await ask({ id: 0, request: { op: "open", export: "d" } });
    moody.mood = "stuck";
    const read = { op: "read", device: 0, offset: 0, bytes: 1 };
    for (let id = 1; id <= REQUESTS_MAX; id++) port.postMessage({ id, request: read }, []);
    const refused = await ask({ id: 1000, request: read });
    expect(refused).toMatchObject({ type: "failed", id: 1000, error: { errno: "EBUSY" } });
    expect(answers).toHaveLength(2);
  });

  /** A port without a client at its end. Device 0 is to be opened on a moody store. */
  async function bare() {
    const { engine, client, moody } = await connected();
    await device(client, { driver: "moody" });
    const [qmp] = localPorts();
    const [port, enginePort] = localPorts();
    const answers: object[] = [];
    let wake = (_answer: object) => {};
    port.onmessage = ({ data }) => {
      answers.push(data);
      wake(data);
    };
    engine.connect({ qmp, data: enginePort });
    const ask = (message: unknown) =>
      new Promise<object>((resolve) => {
        wake = resolve;
        port.postMessage(message, []);
      });
    return { port, ask, answers, moody };
  }
});
