/** The two ends of an engine: in good order, and after a bug of ours. */

import { describe, expect, it } from "vitest";
import { connectLocally } from "../../src/engine/node.ts";
import { addNode, chain, connected, device } from "./world.ts";

describe("after a broken invariant", () => {
  it("every client is told why, whatever it waits for", async () => {
    const { client, engine, moody } = await connected();
    const other = await connectLocally(engine);
    const disk = await device(client, { driver: "moody" });
    await addNode(client, { driver: "moody", "node-name": "m", size: 1 });
    moody.mood = "stuck";
    const waiting = [
      disk.read(0, 1),
      other.events().next(),
      // Flushes, which waits for ever.
      client.execute("blockdev-del", { "node-name": "m" }),
      client.execute("query-jobs"),
    ].map((promise) => promise.then(String, (error) => error));
    moody.mood = "buggy";
    const bug = await disk.read(1, 1).catch((error) => error);
    expect(bug.desc).toBe(
      "The engine has stopped after an internal error: Invariant broken: two and two is four",
    );
    for (const outcome of await Promise.all(waiting))
      expect(String(outcome)).toMatch(/two and two/);
    await expect(client.execute("query-jobs")).rejects.toThrow(/two and two/);
    await expect(other.execute("query-jobs")).rejects.toThrow(/two and two/);
    await expect(disk.read(0, 1)).rejects.toThrow(/two and two/);
    await expect(engine.close()).rejects.toThrow(/two and two/);
  });

  it("a monitor answers what it was asked, and all that comes", async () => {
    const { engine, moody, client, clock } = await connected();
    await device(client, { driver: "moody" });
    const replies: object[] = [];
    const monitor = engine.openMonitor((message) => replies.push(message));
    monitor.receive({ execute: "qmp_capabilities", id: 1 });
    moody.mood = "buggy";
    monitor.receive({ execute: "block-export-del", arguments: { id: "d", mode: "hard" }, id: 2 });
    monitor.receive({ execute: "blockdev-del", arguments: { "node-name": "d-node" }, id: 3 });
    monitor.receive({ execute: "query-jobs", id: 4 });
    await clock.advance(0);
    monitor.receive({ execute: "query-jobs", id: 5 });
    const told = replies.filter((reply) => "error" in reply);
    expect(told).toMatchObject([
      { id: 3, error: { class: "GenericError", desc: expect.stringContaining("two and two") } },
      { id: 4, error: { desc: expect.stringContaining("two and two") } },
      { id: 5, error: { desc: expect.stringContaining("two and two") } },
    ]);
  });

  it("jobs do no more than they have under way", async () => {
    const { client, engine, clock } = await connected();
    await chain(client);
    await client.execute("block-stream", { device: "top", "job-id": "s", speed: 65536 });
    await clock.advance(100);
    engine.stop(new Error("Invariant broken: x"));
    await clock.advance(0);
    const [job] = engine.jobs.all();
    const { current } = job!.progress;
    await clock.advance(3_600_000);
    expect([job!.status, job!.progress.current]).toEqual(["paused", current]);
  });

  it("a new client is refused with the reason", async () => {
    const { engine } = await connected();
    engine.stop(new Error("Invariant broken: x"));
    await expect(connectLocally(engine)).rejects.toThrow(/Invariant broken: x/);
  });

  it("the first reason counts", async () => {
    const { engine } = await connected();
    engine.stop(new Error("one"));
    engine.stop(new Error("two"));
    expect(engine.stopped?.message).toContain("one");
  });
});

describe("close", () => {
  it("cancels the jobs, then flushes and closes every node from the top down", async () => {
    const { client, engine, clock } = await connected();
    await chain(client);
    await client.execute("block-stream", { device: "top", "job-id": "s", speed: 10 });
    await clock.runUntil(engine.close());
    expect([engine.graph.nodes, engine.jobs.all(), engine.exports.all]).toEqual([[], [], []]);
  });

  it("takes no more commands, and waits for the one that runs", async () => {
    const { client, engine, moody, clock } = await connected();
    await addNode(client, { driver: "moody", "node-name": "m", size: 1 });
    moody.mood = "stuck";
    const removed = client.execute("blockdev-del", { "node-name": "m" }).catch((error) => error);
    await clock.advance(0);
    expect(moody.flushCount).toBe(1);
    const closed = engine.close();
    await expect(client.execute("query-jobs")).rejects.toThrow(/closing down/);
    expect(await removed).toMatchObject({ desc: "The engine is closing down" });
    // The close must not try it, too, while blockdev-del is at it.
    await clock.advance(1000);
    expect(moody.flushCount).toBe(1);
    moody.bell.ring();
    await closed;
    expect([moody.flushCount, engine.graph.nodes.length]).toEqual([1, 0]);
    await expect(connectLocally(engine)).rejects.toThrow(/closing down/);
  });

  it("tells of what could not be written, and goes on with the rest", async () => {
    const { client, engine, moody } = await connected();
    await device(client, { driver: "moody" });
    await device(client, { id: "e" });
    moody.mood = "broken";
    await expect(engine.close()).rejects.toMatchObject({ errno: "EIO" });
    expect(engine.graph.nodes.map(({ name }) => name)).toEqual(["d-node"]);
  });
});
