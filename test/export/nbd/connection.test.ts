/** Connections: how they live side by side, and how each of their waits ends. In memory. */

import { afterEach, describe, expect, it } from "vitest";
import { Command, CommandFlag, Option } from "../../../src/export/nbd/protocol.ts";
import { MemoryWorld, SIZE } from "./memory.ts";
import { bytes, type RawClient, u32 } from "./raw-client.ts";

let world: MemoryWorld;

afterEach(async () => {
  expect(world.bugs).toEqual([]);
  world.moody.mood = "fine";
  world.moody.bell.ring();
  await world.clock.runUntil(world.engine.close());
  // Nothing of a connection outlives its server.
  expect(world.clock.timerCount).toBe(0);
});

const read = (count = 512, offset = 0) => ({ type: Command.read, bytes: count, offset });
const write = (data: Uint8Array, offset = 0) => ({ type: Command.write, data, offset });

/** Whether the server has hung up on the client. */
async function isGone(client: RawClient): Promise<boolean> {
  let gone = false;
  client.channel.closed.then(() => {
    gone = true;
  });
  await world.settle();
  return gone;
}

describe("the handshake", () => {
  it("has a limit, after which the client is hung up on", async () => {
    world = await MemoryWorld.start();
    const client = world.dial();
    await world.clock.advance(9_999);
    expect(await isGone(client)).toBe(false);
    await world.clock.advance(1);
    expect(await isGone(client)).toBe(true);
  });

  it("has the limit that was set, also in the middle of an option", async () => {
    world = await MemoryWorld.start({ "handshake-max-seconds": 2 });
    const client = world.dial();
    await world.run(() => client.greet());
    await client.option(Option.list, bytes(), 100);
    await world.clock.advance(1_999);
    expect(await isGone(client)).toBe(false);
    await world.clock.advance(1);
    expect(await isGone(client)).toBe(true);
  });

  it("has no limit if that is 0, and none once it is over", async () => {
    world = await MemoryWorld.start({ "handshake-max-seconds": 0 });
    await world.disk("d");
    const slow = world.dial();
    await world.clock.advance(3_600_000);
    expect(await isGone(slow)).toBe(false);
    const quick = await world.client("d");
    await world.clock.advance(3_600_000);
    await world.run(() => quick.request(read()));
  });

  it("ends without a word if the export goes away in the midst of it", async () => {
    world = await MemoryWorld.start();
    await world.disk("d");
    const client = world.dial();
    await world.run(() => client.greet());
    const removed = world.send("block-export-del", { id: "d" });
    const asked = client.until(() => client.go("d"));
    await world.clock.runUntil(Promise.all([removed, asked]));
    expect(client.transcript()).toMatch(/error 6|hung up/);
  });
});

describe("how many", () => {
  it("clients wait for one another where max-connections says so", async () => {
    world = await MemoryWorld.start({ "max-connections": 1 });
    await world.disk("d");
    const first = await world.client("d");
    const second = world.dial();
    let isGreeted = false;
    const greeted = second.greet().then(() => {
      isGreeted = true;
    });
    await world.settle();
    expect(isGreeted).toBe(false);
    await first.sendRequest({ type: Command.disconnect });
    await world.clock.runUntil(greeted);
  });

  it("a client that goes while it waits gives up its place", async () => {
    world = await MemoryWorld.start({ "max-connections": 1 });
    await world.disk("d");
    const first = await world.client("d");
    const impatient = world.dial();
    const patient = world.dial();
    impatient.channel.destroy();
    await world.settle();
    first.channel.destroy();
    await world.run(() => patient.greet());
  });

  it("100 clients are served at a time unless something else is said", async () => {
    world = await MemoryWorld.start();
    const clients = Array.from({ length: 101 }, () => world.dial());
    let greeted = 0;
    const all = clients.map((client) => client.greet().then(() => greeted++));
    await world.settle();
    expect(greeted).toBe(100);
    clients[0]!.channel.destroy();
    await world.clock.runUntil(Promise.all(all.slice(1)));
  });

  it("multi-conn is told of only where more than one may come", async () => {
    for (const [max, flags] of [
      [0, "0d6d"],
      [1, "0c6d"],
      [2, "0d6d"],
    ] as const) {
      world = await MemoryWorld.start({ "max-connections": max });
      await world.disk("d");
      const client = world.dial();
      await world.run(async () => {
        await client.greet();
        await client.info(Option.info, "d");
      });
      expect(client.transcript()).toContain(`0000000000010000${flags}`);
    }
  });

  it("16 requests of a client are under way at a time; the next is not taken in", async () => {
    world = await MemoryWorld.start();
    await world.disk("d", "moody");
    world.moody.mood = "stuck";
    const client = await world.client("d");
    for (let i = 0; i < 20; i++) await client.sendRequest(read());
    await world.settle();
    const { channel } = client as unknown as { channel: { other: { unreadBytes: number } } };
    // Four lie unread, but for what the reader has taken with the last piece.
    expect(channel.other.unreadBytes).toBe(4 * 28);
    world.moody.mood = "fine";
    world.moody.bell.ring();
    await world.run(async () => {
      for (let i = 0; i < 20; i++) await client.answer();
    });
  });
});

describe("answers", () => {
  it("come as requests finish, whatever came first", async () => {
    world = await MemoryWorld.start();
    await world.disk("slow", "moody");
    world.moody.mood = "stuck";
    const client = await world.client("slow", "simple");
    await client.sendRequest(read());
    await client.sendRequest({ type: Command.cache, bytes: 512 });
    await world.run(() => client.answer());
    expect(client.transcript()).toContain("simple 0000000200000000 error 0");
    world.moody.mood = "fine";
    world.moody.bell.ring();
    await world.run(() => client.answer());
    expect(client.transcript()).toContain("simple 0000000100000000 error 0");
  });

  it.each(["simple", "structured", "extended"])("tell of the disk's errors, %s", async (mode) => {
    world = await MemoryWorld.start();
    await world.disk("d", "moody");
    const client = await world.client("d", mode);
    world.moody.mood = "broken";
    await world.run(async () => {
      await client.request(read());
      await client.request(write(new Uint8Array(512)));
      await client.request({ type: Command.flush });
      world.moody.mood = "fine";
      await client.request({ type: Command.flush });
    });
    const lines = client.transcript().split("\n");
    expect(lines.filter((line) => / error 5( |$)/.test(line))).toHaveLength(3);
    // QEMU hangs up on a read that fails in the middle; here the client may go on.
    expect(lines.at(-2)).toMatch(/error 0|none/);
  });

  it("wait with their disk while that is drained", async () => {
    world = await MemoryWorld.start();
    await world.disk("d");
    const client = await world.client("d");
    const section = await world.clock.runUntil(
      world.engine.graph.drain([world.engine.graph.get("d")]),
    );
    await client.sendRequest(write(new Uint8Array(512).fill(1)));
    let isAnswered = false;
    const answered = client.answer().then(() => {
      isAnswered = true;
    });
    await world.settle();
    expect(isAnswered).toBe(false);
    section.end();
    await world.clock.runUntil(answered);
  });

  it("of writes with FUA, and of all writes with writethrough, come after a flush", async () => {
    world = await MemoryWorld.start();
    await world.disk("d", "moody");
    await world.execute("block-export-add", {
      type: "nbd",
      id: "w",
      name: "w",
      "node-name": "d",
      writable: true,
      writethrough: true,
    });
    const data = new Uint8Array(512);
    const { fua } = CommandFlag;
    const flushes = async (name: string, request: object) => {
      const before = world.moody.flushCount;
      const client = await world.client(name);
      await world.run(() => client.request(request as never));
      client.channel.destroy();
      return world.moody.flushCount - before;
    };
    expect(await flushes("d", write(data))).toBe(0);
    expect(await flushes("d", { ...write(data), flags: fua })).toBe(1);
    expect(await flushes("d", { type: Command.writeZeroes, bytes: 512, flags: fua })).toBe(1);
    expect(await flushes("d", { type: Command.trim, bytes: 512, flags: fua })).toBe(1);
    expect(await flushes("w", write(data))).toBe(1);
    expect(await flushes("w", { type: Command.writeZeroes, bytes: 512 })).toBe(1);
    expect(await flushes("w", read())).toBe(0);
  });
});

describe("a client that", () => {
  it("does not take its answers is held back, and nobody else is", async () => {
    world = await MemoryWorld.start();
    await world.disk("d");
    await fill(SIZE);
    const slow = await world.client("d");
    const quick = await world.client("d");
    // 64 of the answers are more than lies unread on the way.
    const sent = Array.from({ length: 64 }, () => slow.sendRequest(read(32768)));
    await world.settle();
    for (let i = 0; i < 50; i++) await world.run(() => quick.request(read()));
    const { channel } = slow as unknown as { channel: { unreadBytes: number } };
    expect(channel.unreadBytes).toBeLessThan(17 * 33000);
    await world.run(async () => {
      for (let i = 0; i < 64; i++) await slow.answer();
      await Promise.all(sent);
    });
  });

  it("never takes them keeps nobody from removing the export, or stopping", async () => {
    world = await MemoryWorld.start();
    await world.disk("d");
    await fill(SIZE);
    const slow = await world.client("d");
    for (let i = 0; i < 16; i++) slow.sendRequest(read(32768));
    await world.settle();
    expect(await world.execute("block-export-del", { id: "d" })).toMatch("still in use");
    expect(await world.execute("block-export-del", { id: "d", mode: "hard" })).toEqual({});
    await world.settle();
    expect(world.events).toEqual(["BLOCK_EXPORT_DELETED d"]);
    expect(await isGone(slow)).toBe(true);
  });

  it("ends its sending in the middle of a write leaves the disk as it was", async () => {
    world = await MemoryWorld.start();
    await world.disk("d");
    const client = await world.client("d");
    const request = write(new Uint8Array(100));
    await client.sendRequest({ ...request, bytes: 512 });
    (client.channel as unknown as { endSending(): void }).endSending();
    expect(await isGone(client)).toBe(true);
    const other = await world.client("d");
    await world.run(() => other.request(read(SIZE)));
    expect(other.transcript()).toContain("type 2 000000000000000000010000");
  });

  it("is gone gives up its reads, and has its writes done", async () => {
    world = await MemoryWorld.start();
    await world.disk("d", "moody");
    world.moody.mood = "stuck";
    const client = await world.client("d");
    await client.sendRequest(write(new Uint8Array(512).fill(7)));
    await client.sendRequest(read(512, 4096));
    await world.settle();
    client.channel.destroy();
    await world.settle();
    expect(await world.execute("block-export-del", { id: "d" })).toMatch("still in use");
    world.moody.mood = "fine";
    world.moody.bell.ring();
    await world.settle();
    const other = await world.client("d");
    await world.run(() => other.request(read()));
    expect(other.transcript()).toContain("512 x 07");
  });

  it("claims more than it sends is not believed", async () => {
    world = await MemoryWorld.start();
    await world.disk("d");
    const client = await world.client("d");
    const before = process.memoryUsage().arrayBuffers;
    await client.sendRequest({ type: Command.write, bytes: 32 * 1024 * 1024 });
    await client.send(new Uint8Array(1000));
    await world.settle();
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * 1024 * 1024);
  });

  it("talks nonsense hurts nobody else", async () => {
    world = await MemoryWorld.start();
    await world.disk("d");
    const good = await world.client("d");
    for (const nonsense of [u32(0), new Uint8Array(1000).fill(255), bytes(u32(3), u32(1))]) {
      const bad = world.dial();
      await world.run(() => bad.send(nonsense));
      (bad.channel as unknown as { endSending(): void }).endSending();
      expect(await isGone(bad)).toBe(true);
      await world.run(() => good.request(read()));
    }
  });
});

describe("the end", () => {
  it("of an export comes at once for a request that hangs", async () => {
    world = await MemoryWorld.start();
    await world.disk("d", "moody");
    world.moody.mood = "stuck";
    const client = await world.client("d");
    await client.sendRequest(read());
    await client.sendRequest(write(new Uint8Array(512)));
    await world.settle();
    const exports = () => world.execute("query-block-exports");
    expect(await world.execute("block-export-del", { id: "d", mode: "hard" })).toEqual({});
    expect(await isGone(client)).toBe(true);
    expect(await exports()).toEqual([]);
    expect(world.events).toEqual(["BLOCK_EXPORT_DELETED d"]);
  });

  it("of an export leaves other exports' clients alone", async () => {
    world = await MemoryWorld.start();
    await world.disk("a");
    await world.disk("b");
    const [a, b] = [await world.client("a"), await world.client("b")];
    await world.execute("block-export-del", { id: "a", mode: "hard" });
    expect(await isGone(a)).toBe(true);
    await world.run(() => b.request(read()));
  });

  it("of the server sends all away, also those in the handshake and those that wait", async () => {
    world = await MemoryWorld.start({ "max-connections": 2 });
    await world.disk("a", "moody");
    await world.disk("b");
    world.moody.mood = "stuck";
    const clients = [await world.client("a"), world.dial(), world.dial()];
    await clients[0]!.sendRequest(read());
    await world.settle();
    expect(await world.execute("nbd-server-stop")).toEqual({});
    for (const client of clients) expect(await isGone(client)).toBe(true);
    expect(world.events).toEqual(["BLOCK_EXPORT_DELETED b", "BLOCK_EXPORT_DELETED a"]);
    expect(await world.execute("nbd-server-stop")).toMatch("not running");
    const addr = { type: "unix", data: { path: "somewhere" } };
    expect(await world.execute("nbd-server-start", { addr })).toEqual({});
    await world.run(() => world.dial().greet());
  });

  it("of the engine is the end of the server", async () => {
    world = await MemoryWorld.start();
    await world.disk("d");
    const client = await world.client("d");
    await world.clock.runUntil(world.engine.close());
    expect(await isGone(client)).toBe(true);
  });
});

async function fill(count: number): Promise<void> {
  const client = await world.client("d");
  await world.run(() => client.request(write(new Uint8Array(count).fill(9))));
  client.channel.destroy();
}
