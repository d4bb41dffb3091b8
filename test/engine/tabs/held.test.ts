/** An owner that cannot open a disk right away: what clients keep for it waits, and so do they, for nothing else. */

import { describe, expect, it } from "vitest";
import { MemoryStore } from "../../../src/drivers/protocol/memory.ts";
import type { QmpError } from "../../../src/engine/qmp-error.ts";
import { DISK_BYTES, type Tab, threeTabs } from "./tab.ts";

const bytes = (value: number, length = 512) => new Uint8Array(length).fill(value);

/** Tab `a` has the disks: `d`, and `e` on a file of its own. */
async function begin(seed = 1) {
  const { clock, origin, run, open, tabs } = await threeTabs(seed);
  const [a, b, c] = tabs;
  const other = { driver: "shelf", "node-name": "other", filename: "other" };
  await run(a.client.execute("blockdev-add", other as never));
  const writable = { type: "message-port", "node-name": "other", writable: true } as const;
  await run(a.client.execute("block-export-add", { ...writable, id: "e" }));
  const lose = (tab: Tab) => {
    origin.away.add("disk");
    tab.crash();
  };
  const retry = async (tab: Tab) => {
    origin.away.delete("disk");
    await run(tab.client.execute("x-recovery-retry"));
  };
  /** Within a second: what waits for ever does not count. */
  const soon = async <T>(promise: Promise<T>): Promise<T | QmpError | "waits"> => {
    let found: T | QmpError | "waits" = "waits";
    promise.then(
      (value) => {
        found = value;
      },
      (error) => {
        found = error;
      },
    );
    await clock.advance(1000);
    return found;
  };
  return { clock, origin, run, a, b, c, lose, retry, soon, open };
}

describe("a disk that cannot be opened when the disks change hands", () => {
  it("has all that was written when it is opened again; requests wait for it, those for others do not", async () => {
    const { run, a, b, c, lose, retry, soon } = await begin();
    const disk = await run(c.client.openDevice("d"));
    await run(disk.write(0, bytes(1)));
    await run(disk.write(512, bytes(2)));
    await run(disk.writeZeroes(512, 512));
    lose(a);
    const read = disk.read(0, 1024);
    expect(await soon(read)).toBe("waits");
    expect(b.isOwner).toBe(true);
    expect(c.client.state.text).toMatch(/disk of 'd' cannot be opened yet/);
    const other = await run(b.client.openDevice("e"));
    await run(b.client.execute("query-block-exports"));
    expect(await soon(other.read(0, 0))).not.toBe("waits");
    await retry(b);
    expect(await run(read)).toEqual(new Uint8Array([...bytes(1), ...bytes(0)]));
    expect([b.client.state.text, c.client.state.text]).toEqual(["", ""]);
    await run(disk.flush());
    b.crash();
    expect(await run(disk.read(0, 1024))).toEqual(new Uint8Array([...bytes(1), ...bytes(0)]));
    await run(disk.flush());
  });

  it.each(["crashes", "is closed"])(
    "is opened by the next one, after that owner %s",
    async (how) => {
      const { run, a, b, c, lose, soon, origin } = await begin();
      const disk = await run(c.client.openDevice("d"));
      await run(disk.write(0, bytes(1)));
      lose(a);
      expect(await soon(disk.read(0, 512))).toBe("waits");
      origin.away.delete("disk");
      if (how === "crashes") b.crash();
      else await run(b.client.close());
      expect(await run(disk.read(0, 512))).toEqual(bytes(1));
      await run(disk.flush());
      expect(c.isOwner).toBe(true);
    },
  );

  it("can be given up: then what was not flushed is told as lost, and the disk as gone", async () => {
    const { run, a, b, c, lose, soon, origin } = await begin();
    const disk = await run(c.client.openDevice("d"));
    await run(disk.write(0, bytes(2)));
    lose(a);
    const flush = disk.flush();
    expect(await soon(flush)).toBe("waits");
    await run(b.client.execute("x-recovery-dismiss", { kind: "node", name: "disk" }));
    expect(await soon(flush)).toMatchObject({ errno: "EIO", desc: expect.stringMatching(/lost/) });
    expect(await soon(disk.flush())).toMatchObject({ errno: "ENOMEDIUM" });
    expect(c.client.state.text).toBe("");
    // Nobody writes it again, not on what has the name then either.
    origin.away.delete("disk");
    const file = { driver: "shelf", filename: "disk" };
    const node = { driver: "qcow2", "node-name": "disk", file };
    await run(b.client.execute("blockdev-add", node as never));
    await run(b.client.execute("x-recovery-retry"));
    const same = await run(b.client.openDevice("d"));
    await run(same.write(0, bytes(3)));
    await run(same.flush());
    b.crash();
    const now = await run(c.client.openDevice("d"));
    expect(await run(now.read(0, 512))).toEqual(bytes(3));
  });

  it("keeps nobody waiting for ever who came too late with what was to be written again", async () => {
    const { run, a, b, c, lose, retry, soon, clock } = await begin();
    const disk = await run(c.client.openDevice("d"));
    await run(disk.write(0, bytes(1)));
    c.freeze();
    lose(a);
    await clock.advance(5000);
    expect(b.isOwner).toBe(true);
    expect(b.client.state.text).toMatch(/disk of 'd' cannot be opened yet/);
    c.thaw();
    const [flush, read] = [disk.flush(), disk.read(0, 512)];
    expect(await soon(Promise.race([flush, read]))).toBe("waits");
    await retry(b);
    expect(await soon(flush)).toMatchObject({ errno: "EIO", desc: expect.stringMatching(/lost/) });
    expect(await soon(read)).toEqual(bytes(0));
    await run(disk.flush());
    expect([b.client.state.text, c.client.state.text]).toEqual(["", ""]);
  });

  it("is lost, and told, if somebody puts another one under its name", async () => {
    const { run, a, b, c, lose, soon } = await begin();
    const disk = await run(c.client.openDevice("d"));
    await run(disk.write(0, bytes(2)));
    lose(a);
    const flush = disk.flush();
    expect(await soon(flush)).toBe("waits");
    await run(b.client.execute("blockdev-add", { driver: "memory", "node-name": "m", size: 4096 }));
    const more = { type: "message-port", "node-name": "m", writable: true } as const;
    await run(b.client.execute("block-export-add", { ...more, id: "d" }));
    const same = await run(b.client.openDevice("d"));
    expect(await run(same.read(0, 512))).toEqual(bytes(0));
    expect(await soon(flush)).toMatchObject({ errno: "EIO" });
    await run(same.flush());
  });

  it("is not waited for by whoever calls off, or closes the device", async () => {
    const { run, a, b, c, lose, retry, soon, clock } = await begin();
    const disk = await run(c.client.openDevice("d"));
    await run(disk.write(0, bytes(2)));
    lose(a);
    const enough = new AbortController();
    const waiting = [
      b.client.openDevice("d", enough.signal),
      disk.read(0, 512, { signal: enough.signal }),
    ].map((request) => request.catch((error: unknown) => error));
    expect(await soon(Promise.race(waiting))).toBe("waits");
    enough.abort();
    expect(await soon(Promise.all(waiting))).toMatchObject([
      { errno: "ECANCELED" },
      { errno: "ECANCELED" },
    ]);
    expect(await soon(disk.close())).not.toBe("waits");
    await retry(b);
    const same = await run(b.client.openDevice("d"));
    expect(await run(same.read(0, 512))).toEqual(bytes(2));
    await run(same.close());
    await clock.advance(100);
    // Nobody has left it open.
    await run(b.client.execute("block-export-del", { id: "d" }));
  });

  it("gets nothing older on top of what was flushed since it is back, whoever is lost", async () => {
    const { run, a, b, c, lose, retry, soon } = await begin();
    const [old, disk] = [await run(c.client.openDevice("d")), await run(b.client.openDevice("d"))];
    await run(old.write(0, bytes(1)));
    lose(a);
    expect(await soon(old.read(0, 512))).toBe("waits");
    await retry(b);
    await run(disk.write(0, bytes(2)));
    await run(disk.flush());
    b.crash();
    expect(await run(old.read(0, 512))).toEqual(bytes(2));
    await run(old.flush());
  });

  it.each(["the same owner", "the next one"])(
    "gets nothing older on top of what another export has written meanwhile, when %s opens it",
    async (who) => {
      const { run, a, b, c, lose, soon, origin } = await begin();
      // The export's node is a filter that does not come back at once; the disk below it does.
      const writable = { type: "message-port", writable: true } as const;
      await run(a.client.execute("block-export-del", { id: "e" }));
      const over = { driver: "raw", "node-name": "over", file: "disk" } as const;
      await run(a.client.execute("blockdev-add", over));
      await run(
        a.client.execute("block-export-add", { ...writable, id: "f", "node-name": "over" }),
      );
      const [one, other] = [
        await run(c.client.openDevice("f")),
        await run(c.client.openDevice("d")),
      ];
      await run(one.write(0, bytes(1)));
      lose(a);
      expect(await soon(one.read(0, 512))).toBe("waits");
      // Of the two only `d` is brought back, and written.
      origin.away.delete("disk");
      const file = { driver: "shelf", filename: "disk" };
      await run(b.client.execute("x-recovery-dismiss", { kind: "export", name: "d" }));
      const node = { driver: "qcow2", "node-name": "disk", file };
      await run(b.client.execute("blockdev-add", node as never));
      await run(
        b.client.execute("block-export-add", { ...writable, id: "d", "node-name": "disk" }),
      );
      const again = await run(b.client.openDevice("d"));
      await run(again.write(0, bytes(2)));
      await run(again.flush());
      if (who === "the same owner") await run(b.client.execute("x-recovery-retry"));
      else b.crash();
      expect(await run(one.flush().catch((error: unknown) => error))).toMatchObject({
        errno: "EIO",
      });
      const now = await run(c.client.openDevice("d"));
      expect(await run(now.read(0, 512))).toEqual(bytes(2));
      expect(await run(other.flush().catch((error: unknown) => error))).toMatchObject({
        errno: "ENOMEDIUM",
      });
    },
  );
});

describe("an export whose node was lost with its engine", () => {
  it("is waited for as soon as there is a node of that name, and opened when it is back", async () => {
    const { run, a, b, c, soon, clock } = await begin();
    const node = { driver: "memory", "node-name": "m", size: 4096 } as const;
    await run(a.client.execute("blockdev-add", node));
    const writable = { type: "message-port", "node-name": "m", writable: true } as const;
    await run(a.client.execute("block-export-add", { ...writable, id: "f" }));
    a.crash();
    await clock.advance(5000);
    await run(b.client.execute("blockdev-add", node));
    const opened = c.client.openDevice("f");
    expect(await soon(opened)).toBe("waits");
    await run(b.client.execute("x-recovery-retry"));
    expect(await soon(opened)).toMatchObject({ size: 4096 });
  });
});

describe("a client that was away while the disks changed hands", () => {
  it("has nothing written again that is older than what others have flushed meanwhile", async () => {
    const { run, a, b, c, clock } = await begin();
    const [old, disk] = [await run(b.client.openDevice("d")), await run(c.client.openDevice("d"))];
    await run(old.write(0, bytes(1)));
    b.client.suspend();
    await clock.advance(100);
    await run(disk.write(0, bytes(2)));
    await run(disk.flush());
    a.crash();
    await run(b.client.resume());
    expect(await run(disk.read(0, 512))).toEqual(bytes(2));
    expect(await run(old.flush().catch((error: unknown) => error))).toMatchObject({ errno: "EIO" });
  });

  it("has lost nothing if they were given back in good order, and has nothing written again", async () => {
    const { run, a, b, c, clock } = await begin();
    const [old, disk] = [await run(b.client.openDevice("d")), await run(c.client.openDevice("d"))];
    await run(old.write(0, bytes(1, 1024)));
    b.client.suspend();
    await clock.advance(100);
    await run(disk.write(0, bytes(2)));
    await run(a.client.close());
    await run(disk.write(0, bytes(3)));
    await run(b.client.resume());
    await run(old.flush());
    expect(await run(old.read(0, 1024))).toEqual(new Uint8Array([...bytes(3), ...bytes(1)]));
  });

  it("is told of a loss if any owner since then was lost", async () => {
    const { run, a, b, c, clock, open } = await begin();
    const [old, disk] = [await run(b.client.openDevice("d")), await run(c.client.openDevice("d"))];
    await run(old.write(0, bytes(1)));
    b.client.suspend();
    await clock.advance(100);
    await run(a.client.close());
    await run(disk.write(0, bytes(2)));
    c.crash();
    await open();
    await run(b.client.resume());
    expect(await run(old.flush().catch((error: unknown) => error))).toMatchObject({ errno: "EIO" });
  });
});

it("a backup sees what is written again: it keeps its moment", async () => {
  const { run, a, b, c, clock, origin } = await begin();
  const disk = await run(c.client.openDevice("d"));
  await run(disk.write(0, bytes(1, DISK_BYTES)));
  await run(disk.flush());
  origin.files.set("copy", new MemoryStore(DISK_BYTES));
  const file = { driver: "shelf", "node-name": "copy", filename: "copy" };
  await run(a.client.execute("blockdev-add", file as never));
  await run(
    a.client.execute("blockdev-backup", {
      "job-id": "j",
      device: "disk",
      target: "copy",
      sync: "full",
      speed: 65536,
      "x-perf": { "max-chunk": 65536 },
    }),
  );
  const last = DISK_BYTES - 65536;
  await run(disk.write(last, bytes(2, 65536)));
  a.crash();
  expect(await run(disk.read(last, 512))).toEqual(bytes(2));
  await run(b.client.execute("block-job-set-speed", { device: "j", speed: 0 }));
  await clock.advance(30_000);
  const history = await run(b.client.execute("x-query-job-history"));
  expect(history).toMatchObject([{ id: "j", outcome: "completed" }]);
  const onCopy = { type: "message-port", id: "x", "node-name": "copy" } as const;
  await run(b.client.execute("block-export-add", onCopy));
  const copy = await run(b.client.openDevice("x"));
  const found = await run(copy.read(0, DISK_BYTES));
  expect(Buffer.compare(found, bytes(1, DISK_BYTES))).toBe(0);
});
