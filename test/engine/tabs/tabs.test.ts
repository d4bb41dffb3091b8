/** What tabs that share disks can rely on, one thing at a time. */

import { describe, expect, it } from "vitest";
import { BlockError } from "../../../src/base/errors.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import { QmpError } from "../../../src/engine/qmp-error.ts";
import { Origin } from "./origin.ts";
import { cannotOpen, makeDisk, openDisk, recoverDisk, Tab } from "./tab.ts";

async function origin(seed = 1) {
  const clock = new VirtualClock();
  const shared = new Origin(clock, seed);
  await clock.runUntil(makeDisk(shared));
  const run = <T>(promise: Promise<T>) => clock.runUntil(promise);
  const open = async (
    ...args: ConstructorParameters<typeof Tab> extends [Origin, ...infer R] ? R : never
  ) => {
    const tab = new Tab(shared, ...args);
    await run(tab.client.start());
    return tab;
  };
  return { clock, shared, run, open };
}

const bytes = (value: number, length = 512) => new Uint8Array(length).fill(value);

describe("M01 the second tab", () => {
  it("works through the first, on the same disk, jobs and events", async () => {
    const { open, run } = await origin();
    const a = await open();
    const b = await open();
    expect([a.isOwner, b.isOwner]).toEqual([true, false]);
    const [one, other] = [await run(a.client.openDevice("d")), await run(b.client.openDevice("d"))];
    await run(one.write(512, bytes(1)));
    expect(await run(other.read(512, 512))).toEqual(bytes(1));
    await run(other.write(512, bytes(2)));
    expect(await run(one.read(512, 512))).toEqual(bytes(2));
    const events = b.client.events("JOB_STATUS_CHANGE");
    const options = { driver: "qcow2", file: "disk", size: 4096 } as const;
    await run(a.client.execute("blockdev-create", { "job-id": "j", options }).catch(() => {}));
    const { value } = await run(events.next());
    expect(value?.data).toEqual({ id: "j", status: "created" });
    expect((await run(b.client.execute("query-jobs"))).map(({ id }) => id)).toEqual(["j"]);
  });

  it("waits for the owner, and never sees an empty store", async () => {
    const { shared, open, run, clock } = await origin();
    const a = await open();
    const disk = await run(a.client.openDevice("d"));
    await run(disk.write(0, bytes(7)));
    await run(disk.flush());
    a.freeze();
    const b = new Tab(shared);
    const states: string[] = [];
    b.client.onState = ({ phase }) => states.push(phase);
    let hasStarted = false;
    const started = b.client.start().then(() => {
      hasStarted = true;
    });
    await clock.advance(60_000);
    expect(hasStarted).toBe(false);
    expect(b.client.state.phase).toBe("silent");
    expect(b.client.state.text).toMatch(/does not answer/);
    a.thaw();
    await run(started);
    expect(states.at(-1)).toBe("serving");
    const same = await run(b.client.openDevice("d"));
    expect(await run(same.read(0, 512))).toEqual(bytes(7));
  });
});

describe("M02 the owner's tab", () => {
  it("is closed: the next one takes over, what was not accepted is asked again, once", async () => {
    const { open, run } = await origin();
    const a = await open();
    const b = await open();
    const disk = await run(b.client.openDevice("d"));
    const closing = a.client.close();
    const read = disk.read(0, 512);
    const asked = b.client.execute("query-block-exports");
    await run(closing);
    expect(await run(read)).toEqual(bytes(0));
    expect((await run(asked)).map(({ id }) => id)).toEqual(["d"]);
    expect(b.isOwner).toBe(true);
  });

  it("crashes: acknowledged writes that nobody flushed are there all the same", async () => {
    const { open, run } = await origin();
    const a = await open();
    const b = await open();
    const disk = await run(b.client.openDevice("d"));
    await run(disk.write(4096, bytes(5, 4096)));
    await run(disk.writeZeroes(4096, 512));
    a.crash();
    expect(await run(disk.read(4096, 1024))).toEqual(new Uint8Array([...bytes(0), ...bytes(5)]));
    expect(b.isOwner).toBe(true);
  });

  it("crashes amid a command that changes things: that is said, and can be looked up", async () => {
    const { open, run } = await origin();
    const a = await open();
    const b = await open();
    await run(b.client.execute("query-jobs"));
    const lost = b.client.execute("blockdev-add", {
      driver: "memory",
      "node-name": "m",
      size: 512,
    });
    a.crash();
    const error = await run(lost.catch((reason: unknown) => reason));
    expect(error).toBeInstanceOf(QmpError);
    expect((error as QmpError).desc).toMatch(/lost while 'blockdev-add' was under way/);
    const nodes = await run(b.client.execute("query-named-block-nodes"));
    expect(nodes.some((node) => node["node-name"] === "m")).toBe(false);
  });

  it.each([0, 1, 2, 4, 8, 16])(
    "crashes %i ms after a command, with a journal: it is done once, and answered",
    async (ms) => {
      const { open, run, clock } = await origin(ms + 1);
      const a = await open(recoverDisk);
      const b = await open(recoverDisk);
      await run(b.client.execute("query-jobs"));
      const file = { driver: "shelf", "node-name": "m", filename: "other" };
      const added = b.client.execute("blockdev-add", file as never);
      await clock.advance(ms);
      a.crash();
      expect(await run(added)).toEqual({});
      const nodes = await run(b.client.execute("query-named-block-nodes"));
      expect(nodes.filter((node) => node["node-name"] === "m")).toHaveLength(1);
      expect(b.isOwner).toBe(true);
    },
  );

  it("crashes after a flush: an older write of another tab does not come back over a newer one", async () => {
    const { open, run } = await origin();
    const owner = await open();
    const a = await open();
    const b = await open();
    const [one, other] = [await run(a.client.openDevice("d")), await run(b.client.openDevice("d"))];
    await run(one.write(0, bytes(1)));
    await run(other.write(0, bytes(2)));
    await run(other.flush());
    await run(b.client.close());
    owner.crash();
    expect(await run(one.read(0, 512))).toEqual(bytes(2));
  });

  it("crashes after a snapshot was loaded: nothing older is written on top of it", async () => {
    const { open, run } = await origin();
    const owner = await open();
    const a = await open();
    const b = await open();
    const disk = await run(a.client.openDevice("d"));
    const snapshot = { tag: "s", vmstate: "disk", devices: ["disk"] };
    await run(disk.write(0, bytes(1)));
    await run(b.client.execute("snapshot-save", { "job-id": "save", ...snapshot }));
    await run(b.client.waitForJob("save", "concluded"));
    await run(disk.write(0, bytes(2)));
    await run(b.client.execute("snapshot-load", { "job-id": "load", ...snapshot }));
    expect(await run(b.client.waitForJob("load", "concluded"))).toEqual({ status: "concluded" });
    expect(await run(disk.read(0, 512))).toEqual(bytes(1));
    owner.crash();
    expect(await run(disk.read(0, 512))).toEqual(bytes(1));
  });

  it("is lost while a client sleeps: what that one had not flushed is lost, and its flush says so", async () => {
    const { open, run, clock } = await origin();
    const owner = await open();
    const a = await open(null);
    const b = await open();
    const [one, other] = [await run(a.client.openDevice("d")), await run(b.client.openDevice("d"))];
    await run(one.write(8192, bytes(1)));
    a.freeze();
    owner.crash();
    await run(other.write(8192, bytes(2)));
    await run(other.flush());
    a.thaw();
    await clock.advance(100);
    const error = await run(one.flush().catch((reason: unknown) => reason));
    expect(error).toMatchObject({ errno: "EIO" });
    await run(one.flush());
    expect(await run(one.read(8192, 512))).toEqual(bytes(2));
  });
});

describe("two owners, one after the other,", () => {
  it("that are lost take nothing that was written again by the first of them", async () => {
    const { open, run } = await origin();
    const first = await open();
    const second = await open();
    const third = await open(null);
    await open();
    const disk = await run(third.client.openDevice("d"));
    await run(disk.write(12288, bytes(6)));
    first.crash();
    expect(await run(disk.read(12288, 512))).toEqual(bytes(6));
    expect(second.isOwner).toBe(true);
    second.crash();
    expect(await run(disk.read(12288, 512))).toEqual(bytes(6));
  });

  it("write nothing again for a client that has slept through the first", async () => {
    const { open, run, clock } = await origin();
    const first = await open();
    const second = await open();
    const sleeper = await open(null);
    const other = await open();
    const [old, disk] = [
      await run(sleeper.client.openDevice("d")),
      await run(other.client.openDevice("d")),
    ];
    await run(old.write(0, bytes(1)));
    sleeper.freeze();
    first.crash();
    await run(disk.write(0, bytes(2)));
    await run(disk.flush());
    expect(second.isOwner).toBe(true);
    second.crash();
    sleeper.thaw();
    await clock.advance(3000);
    expect(await run(disk.read(0, 512))).toEqual(bytes(2));
    expect(await run(old.flush().catch((reason: unknown) => reason))).toMatchObject({
      errno: "EIO",
    });
  });
});

describe("M09 a lock that is granted, and a disk that cannot be opened", () => {
  it("another tab gets its chance, and the words say why", async () => {
    const { shared, open, run, clock } = await origin();
    const a = new Tab(shared, () => cannotOpen("The handle is held elsewhere"));
    const texts: string[] = [];
    a.client.onState = ({ phase, text }) => texts.push(`${phase}: ${text}`);
    const started = a.client.start();
    await clock.advance(100);
    expect(texts).toContain("failed: The handle is held elsewhere");
    const b = await open(openDisk);
    await run(started);
    expect(b.isOwner).toBe(true);
    expect(a.client.state).toMatchObject({ phase: "serving", role: "guest" });
  });

  it("is tried again by the only tab there is", async () => {
    const { shared, run } = await origin();
    let tries = 0;
    const a = new Tab(shared, (life) => async (opening) => {
      if (++tries < 3) throw new BlockError("EBUSY", "Not yet");
      return openDisk(life)(opening);
    });
    await run(a.client.start());
    expect(tries).toBe(3);
  });
});

describe("M10 a machine that sleeps for an hour", () => {
  it("the owner goes on with the same epoch, and nothing has timed out", async () => {
    const { shared, open, run, clock } = await origin();
    const a = await open();
    const b = await open();
    const disk = await run(b.client.openDevice("d"));
    await run(disk.write(0, bytes(3)));
    const { epoch } = shared.reign;
    a.freeze();
    b.freeze();
    await clock.advance(3_600_000);
    a.thaw();
    b.thaw();
    expect(await run(disk.read(0, 512))).toEqual(bytes(3));
    await run(disk.flush());
    expect(shared.reign.epoch).toBe(epoch);
    expect(b.client.state.phase).toBe("serving");
  });
});

describe("a tab that tells that it will sleep", () => {
  it("lets go of the disks, and works through the next owner when it wakes", async () => {
    const { open, run, clock } = await origin();
    const a = await open();
    const b = await open();
    const disk = await run(a.client.openDevice("d"));
    await run(disk.write(0, bytes(4)));
    a.client.setHidden(true);
    await clock.advance(50);
    a.client.suspend();
    a.freeze();
    const same = await run(b.client.openDevice("d"));
    expect(b.isOwner).toBe(true);
    expect(await run(same.read(0, 512))).toEqual(bytes(4));
    a.thaw();
    await run(a.client.resume());
    expect(await run(disk.read(0, 512))).toEqual(bytes(4));
    await run(disk.flush());
    expect(a.client.state.role).toBe("guest");
  });
});

describe("a client", () => {
  it("that is gone leaves no device open", async () => {
    const { open, run, clock } = await origin();
    await open();
    const b = await open();
    const c = await open();
    await run(b.client.openDevice("d"));
    b.crash();
    await clock.advance(100);
    await run(c.client.execute("block-export-del", { id: "d" }));
    expect(await run(c.client.execute("query-block-exports"))).toEqual([]);
  });

  it("can give up waiting for an owner that does not answer", async () => {
    const { shared, open, run, clock } = await origin();
    const a = await open();
    a.freeze();
    const b = new Tab(shared);
    const enough = new AbortController();
    const started = b.client.start(enough.signal).catch((error: unknown) => error);
    await clock.advance(10_000);
    enough.abort();
    expect(await run(started)).toMatchObject({ errno: "ECANCELED" });
  });

  it("flushes of its own accord before it keeps too much", async () => {
    const { open, run, clock } = await origin();
    await open();
    const b = await open();
    const disk = await run(b.client.openDevice("d"));
    for (let i = 0; i < 40; i++) await run(disk.write(0, new Uint8Array(1024 * 1024)));
    await clock.advance(1000);
    await run(disk.flush());
  });

  it("has a monitor of the owner", async () => {
    const { open, run } = await origin();
    await open();
    const b = await open();
    const port = await b.client.openMonitor();
    const greeting = new Promise((resolve) => {
      port.onmessage = ({ data }) => resolve(data);
    });
    expect(await run(greeting)).toHaveProperty("QMP");
    port.close();
  });
});
