/** Channels over real sockets: what holds back, and what ends. */

import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ByteChannel, Listener } from "../../src/base/channel.ts";
import { BlockError } from "../../src/base/errors.ts";
import { listen } from "../../src/engine/node-listen.ts";

const folder = mkdtempSync(join(tmpdir(), "blocktab-listen-"));
afterAll(() => rmSync(folder, { recursive: true }));
const path = join(folder, "socket");

let listener: Listener;
let client: Socket;
let channel: ByteChannel;

beforeEach(async () => {
  const accepted = new Promise<ByteChannel>((resolve) => {
    listen({ type: "unix", path }, resolve).then((there) => {
      listener = there;
      client = connect({ path, allowHalfOpen: true });
      client.on("error", () => {});
    });
  });
  channel = await accepted;
});

afterEach(async () => {
  client.destroy();
  channel.destroy();
  await listener.close();
});

const MIB = 1 << 20;
/** Lets what is on its way arrive. */
const turns = async (count = 50) => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};

async function readAll(most = Number.POSITIVE_INFINITY): Promise<number> {
  let bytes = 0;
  while (bytes < most) {
    const piece = await channel.read();
    if (piece === null) break;
    bytes += piece.length;
  }
  return bytes;
}

describe("a channel over a socket", () => {
  it("does not fetch what nobody takes", async () => {
    let sent = 0;
    const piece = new Uint8Array(65536);
    const send = () => {
      while (sent < 64 * MIB && client.write(piece)) sent += piece.length;
    };
    client.on("drain", send);
    send();
    for (let before = -1; before < sent; await turns(500)) before = sent;
    // What lies here, in the kernel and with the sender: far from all.
    expect(sent).toBeLessThan(8 * MIB);
    expect(await readAll(16 * MIB)).toBeGreaterThanOrEqual(16 * MIB);
  });

  it("says that the other side does not keep up, and when it does again", async () => {
    let settled = 0;
    const writes = Array.from({ length: 32 }, () =>
      channel.write(new Uint8Array(MIB)).then(() => settled++),
    );
    await turns();
    expect(settled).toBeLessThan(32);
    client.resume();
    await Promise.all(writes);
  });

  it("lets nobody wait for one that is gone", async () => {
    const write = channel.write(new Uint8Array(32 * MIB)).catch((error: unknown) => error);
    const read = channel.read();
    await turns();
    channel.destroy();
    expect(await write).toBeInstanceOf(BlockError);
    expect(await read).toBeNull();
    await channel.closed;
    await expect(channel.write(new Uint8Array(1))).rejects.toThrow("gone");
  });

  it("is closed when the other side has finished and all has been read, not before", async () => {
    let isClosed = false;
    channel.closed.then(() => {
      isClosed = true;
    });
    client.end("some bytes");
    await turns();
    expect(isClosed).toBe(false);
    expect(await readAll()).toBe(10);
    await channel.closed;
  });

  it("still sends to one that has only finished sending", async () => {
    client.end();
    expect(await channel.read()).toBeNull();
    const heard = new Promise((resolve) => client.once("data", resolve));
    await channel.write(Uint8Array.from([1, 2, 3]));
    expect(await heard).toEqual(Buffer.from([1, 2, 3]));
  });

  it("sends all that was written before it ends", async () => {
    let bytes = 0;
    client.on("data", (piece) => {
      bytes += piece.length;
    });
    const ended = new Promise((resolve) => client.once("end", resolve));
    for (let i = 0; i < 100; i++) channel.write(new Uint8Array(10_000)).catch(() => {});
    channel.finish();
    await ended;
    expect(bytes).toBe(1_000_000);
    await channel.closed;
  });
});
