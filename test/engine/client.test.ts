/** A client and its engine: commands, events, jobs, files, and the end. */

import { describe, expect, it } from "vitest";
import type { Client } from "../../src/engine/client.ts";
import { UNREAD_EVENTS_MAX } from "../../src/engine/event-queue.ts";
import { connectLocally } from "../../src/engine/node.ts";
import { collectGarbage } from "../garbage.ts";
import { chain, connected, device } from "./world.ts";

describe("a client", () => {
  it("that only waits is not collected as garbage", async () => {
    // Nobody else holds it: the wait is reached from the engine, or from nowhere.
    async function waits(): Promise<number> {
      const { client, moody } = await connected();
      const disk = await device(client, { driver: "moody" });
      moody.mood = "stuck";
      const read = disk.read(0, 512);
      setImmediate(() => {
        collectGarbage();
        moody.bell.ring();
      });
      return (await read).length;
    }
    for (let i = 0; i < 20; i++) expect(await waits()).toBe(512);
  });
});

describe("execute", () => {
  it("answers as the command does, or throws a QmpError", async () => {
    const { client } = await connected();
    expect(await client.execute("query-jobs")).toEqual([]);
    const { qemu } = await client.execute("query-version");
    expect(qemu.major).toBeGreaterThanOrEqual(10);
    const error = await client.execute("job-dismiss", { id: "x" }).catch((reason) => reason);
    expect(error).toMatchObject({ name: "QmpError", class: "GenericError", errno: undefined });
    expect(error.message).toBe(error.desc);
  });

  it("is typed by the table of commands", async () => {
    const { client } = await connected();
    // Never called: tsc is the test.
    const _types = async () => {
      // @ts-expect-error no such command
      await client.execute("query-nothing");
      // @ts-expect-error device is missing
      await client.execute("block-stream");
      // @ts-expect-error speed is a number
      await client.execute("block-stream", { device: "x", speed: "1" });
      // @ts-expect-error no such policy
      await client.execute("block-stream", { device: "x", "on-error": "retry" });
      const [job] = await client.execute("query-block-jobs");
      const status: "paused" | string = job!.status;
      // @ts-expect-error no such member
      job!.progress;
      return status;
    };
    expect(_types).toBeTypeOf("function");
  });

  it("shows its traffic to whoever asks", async () => {
    const { client } = await connected();
    const log: string[] = [];
    client.log = ({ direction, message }) => log.push(`${direction} ${JSON.stringify(message)}`);
    await client.execute("query-jobs");
    expect(log.map((line) => line.replace(/"id":\d+/, '"id":N'))).toEqual([
      'sent {"execute":"query-jobs","id":N}',
      'received {"return":[],"id":N}',
    ]);
  });
});

describe("events", () => {
  it("are read one by one, and end with the loop", async () => {
    const { client } = await connected();
    const events = client.events();
    await create(client, "a");
    const seen: string[] = [];
    for await (const event of events) {
      if (event.event === "JOB_STATUS_CHANGE") seen.push(event.data.status);
      if (seen.at(-1) === "concluded") break;
    }
    expect(seen).toEqual(["created", "running", "waiting", "pending", "concluded"]);
    await create(client, "b");
    expect(await events.next()).toEqual({ value: undefined, done: true });
  });

  it("of other names than those asked for are left out", async () => {
    const { client } = await connected();
    const [named, all] = [client.events("BLOCK_EXPORT_DELETED"), client.events()];
    await create(client, "a");
    await client.waitForJob("a", "concluded");
    await device(client);
    await client.execute("block-export-del", { id: "d", mode: "hard" });
    expect((await named.next()).value?.data).toEqual({ id: "d" });
    expect([named.unreadCount, all.unreadCount]).toEqual([0, 6]);
  });

  it("reach every reader, also one that waits already", async () => {
    const { client } = await connected();
    const [one, two] = [client.events(), client.events()];
    const waiting = one.next();
    await create(client, "a");
    expect((await waiting).value).toEqual((await two.next()).value);
  });

  it("that nobody reads end in an error, not in a gap", async () => {
    const { client, engine } = await connected();
    const events = client.events();
    for (let count = 0; count <= UNREAD_EVENTS_MAX; count++) {
      engine.emit({ event: "BLOCK_EXPORT_DELETED", data: { id: `e${count}` } });
    }
    await client.execute("query-jobs");
    await expect(events.next()).rejects.toMatchObject({ errno: "ENOMEM" });
    expect(await events.next()).toEqual({ value: undefined, done: true });
  });

  it("stop when the client is closed", async () => {
    const { client } = await connected();
    const next = client.events().next();
    const settled = next.catch((error) => error);
    await client.close();
    expect(await settled).toMatchObject({ errno: "ENOMEDIUM" });
    await expect(client.execute("query-jobs")).rejects.toMatchObject({ errno: "ENOMEDIUM" });
  });
});

describe("waitForJob", () => {
  it("resolves when the job comes to the status, or is in it already", async () => {
    const { client } = await connected();
    const started = create(client, "a");
    const ended = client.waitForJob("a", "concluded");
    await started;
    expect(await ended).toEqual({ status: "concluded" });
    expect(await client.waitForJob("a", "concluded")).toEqual({ status: "concluded" });
    const gone = client.waitForJob("a", "null");
    await client.execute("job-dismiss", { id: "a" });
    expect(await gone).toEqual({ status: "null" });
  });

  it("misses nothing when it begins in the same turn as the job", async () => {
    const { client } = await connected();
    await chain(client);
    // Nothing to pull: gone long before the answer to what jobs there are.
    const args = { device: "top", "job-id": "s", "base-node": "base" };
    const sent = [client.execute("block-stream", args)];
    for (let i = 0; i < 50; i++)
      sent.push(client.execute("job-pause", { id: "x" }).catch(() => ({})));
    const ended = client.waitForJob("s", "concluded");
    await Promise.all(sent);
    expect(await ended).toEqual({ status: "concluded" });
    expect(await client.execute("query-jobs")).toEqual([]);
  });

  it("tells why a job failed", async () => {
    const { client } = await connected();
    const options = { driver: "memory", name: "in-use", size: 512 } as const;
    await client.execute("blockdev-create", { "job-id": "a", options });
    await client.waitForJob("a", "concluded");
    const node = { driver: "memory", "node-name": "n", name: "in-use" } as const;
    await client.execute("blockdev-add", node);
    await client.execute("blockdev-create", { "job-id": "b", options });
    const { error } = await client.waitForJob("b", "concluded");
    expect(error).toContain("in-use");
  });

  it("ends for a job that there is not, or that can no longer come to it", async () => {
    const { client } = await connected();
    await expect(client.waitForJob("a", "concluded")).rejects.toMatchObject({ errno: "ENOENT" });
    await create(client, "a");
    await client.waitForJob("a", "concluded");
    await expect(client.waitForJob("a", "ready")).rejects.toMatchObject({ errno: "ENOENT" });
  });

  it("can be given up on", async () => {
    const { client, clock } = await connected();
    await create(client, "a");
    await client.waitForJob("a", "concluded");
    const controller = new AbortController();
    const waiting = client.waitForJob("a", "null", controller.signal).catch((error) => error);
    await clock.advance(1000);
    controller.abort();
    expect(await waiting).toMatchObject({ errno: "ECANCELED" });
  });
});

describe("blobs and files", () => {
  it("are handed over once under a name", async () => {
    const { client } = await connected();
    await client.addBlob("a", new Blob(["x"]));
    await expect(client.addBlob("a", new Blob(["y"]))).rejects.toMatchObject({ errno: "EEXIST" });
    await client.removeBlob("a");
    await client.addBlob("a", new Blob(["z"]));
  });

  it("need a store that has them", async () => {
    const { client } = await connected();
    await expect(client.listFiles()).rejects.toMatchObject({ errno: "ENOTSUP" });
  });
});

describe("two clients of one engine", () => {
  it("see the same nodes and events, and do not end each other", async () => {
    const { client, engine } = await connected();
    const other = await connectLocally(engine);
    const events = other.events();
    const disk = await device(client);
    await disk.write(0, new Uint8Array([5]));
    const same = await other.openDevice("d");
    expect([...(await same.read(0, 1))]).toEqual([5]);
    await client.close();
    // Its devices went with it.
    await same.close();
    await other.execute("block-export-del", { id: "d" });
    expect((await events.next()).value).toMatchObject({ event: "BLOCK_EXPORT_DELETED" });
  });
});

function create(client: Client, id: string) {
  const options = { driver: "memory", name: id, size: 512 } as const;
  return client.execute("blockdev-create", { "job-id": id, options });
}
