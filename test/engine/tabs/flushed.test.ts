/** What a flush makes last, whatever else is under way, and who is told if it has not. */

import { describe, expect, it } from "vitest";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { Device } from "../../../src/engine/device.ts";
import type { QmpError } from "../../../src/engine/qmp-error.ts";
import { Tab, threeTabs } from "./tab.ts";
import { twoDisks, twoFiles } from "./two-disks.ts";

const MIB = 1024 * 1024;
const bytes = (value: number) => new Uint8Array(512).fill(value);

it("a flush beside a write that takes long: nothing older comes back over what it has made last", async () => {
  const clock = new VirtualClock();
  const origin = twoFiles(clock, 4 * MIB);
  const run = <T>(promise: Promise<T>) => clock.runUntil(promise);
  const [a, b, c] = [1, 2, 3].map(() => new Tab(origin, twoDisks(4096))) as [Tab, Tab, Tab];
  for (const { client } of [a, b, c]) await run(client.start());
  const slow = await run(a.client.openDevice("slow"));
  const one = await run(b.client.openDevice("fast"));
  const other = await run(c.client.openDevice("fast"));
  for (const n of [0, 1, 2]) void slow.write(n * MIB, new Uint8Array(MIB));
  await clock.advance(10);
  // Others, elsewhere, pass it.
  await run(one.write(3 * MIB, bytes(1)));
  await run(other.write(3 * MIB, bytes(2)));
  await run(other.flush());
  await run(c.client.close());
  a.crash();
  expect((await run(one.read(3 * MIB, 512)))[0]).toBe(2);
});

it("a flush through an export that is read only makes last what was written through another one", async () => {
  const { run, tabs } = await threeTabs(1);
  const [owner, writer, other] = tabs;
  const readOnly = { type: "message-port", id: "r", "node-name": "disk" } as const;
  await run(owner.client.execute("block-export-add", readOnly));
  const old = await run(writer.client.openDevice("d"));
  const disk = await run(other.client.openDevice("d"));
  const reader = await run(other.client.openDevice("r"));
  await run(old.write(0, bytes(1)));
  await run(disk.write(0, bytes(2)));
  await run(reader.flush());
  await run(other.client.close());
  owner.crash();
  expect((await run(old.read(0, 512)))[0]).toBe(2);
});

it("a write whose answer comes after that to its device's close outlives the owner, too", async () => {
  let ends = 0;
  for (let seed = 1; seed <= 16; seed++) {
    const { clock, run, tabs } = await threeTabs(seed);
    const [owner, writer] = tabs;
    const disk = await run(writer.client.openDevice("d"));
    const written = disk.write(0, bytes(1)).then(
      () => true,
      () => false,
    );
    await clock.advance(seed);
    await run(disk.close());
    const isDone = await run(written);
    owner.crash();
    const again = await run(writer.client.openDevice("d"));
    const [found] = await run(again.read(0, 512));
    await run(again.flush());
    if (isDone) expect({ seed, found }).toEqual({ seed, found: 1 });
    if (isDone) ends++;
  }
  expect(ends).toBeGreaterThan(0);
});

describe("what is lost", () => {
  /** A client with devices, that was frozen when it should have said what it keeps. */
  async function lost(count: number) {
    const { clock, run, tabs } = await threeTabs(1);
    const [owner, , writer] = tabs;
    const open = () => run(writer.client.openDevice("d"));
    const devices: Device[] = [];
    for (let i = 0; i < count; i++) devices.push(await open());
    for (const [i, device] of devices.entries()) await run(device.write(i * 4096, bytes(1)));
    writer.freeze();
    owner.crash();
    await clock.advance(5000);
    writer.thaw();
    await clock.advance(100);
    const flush = (device: Device) =>
      run(device.flush().catch((error: unknown) => (error as QmpError).errno));
    return { run, open, devices, flush };
  }

  it("is told to each device of the export, once", async () => {
    const { devices, flush } = await lost(2);
    for (const device of devices) expect(await flush(device)).toBe("EIO");
    for (const device of devices) expect(await flush(device)).toBeUndefined();
  });

  it("is told to the next device if those that there were are closed without a flush", async () => {
    const { run, devices, flush, open } = await lost(2);
    for (const device of devices) await run(device.close());
    const next = await open();
    expect(await flush(next)).toBe("EIO");
    expect(await flush(next)).toBeUndefined();
  });

  it("is told to no device that is opened while there is one that will be told", async () => {
    const { devices, flush, open } = await lost(1);
    const next = await open();
    expect(await flush(next)).toBeUndefined();
    expect(await flush(devices[0]!)).toBe("EIO");
  });
});
