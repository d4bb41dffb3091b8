/** What the queries count, and the one word before a disk is full. */

import { describe, expect, it } from "vitest";
import { Perm } from "../../src/block/permissions.ts";
import { type Conversation, conversation, type Wire } from "./conversation.ts";

const KiB = 1024;

describe("query-blockstats", () => {
  it("counts what goes through a device and through each node below it", async () => {
    const { qmp, device } = await exported();
    await device.write(new Uint8Array(4 * KiB).fill(1), 8 * KiB);
    await device.write(new Uint8Array(1 * KiB).fill(1), 0);
    await device.read(new Uint8Array(2 * KiB), 0);
    await device.discard(0, 4 * KiB);
    await device.flush();
    await qmp.clock.advance(7);
    const [stats] = (await qmp.execute("query-blockstats"))["return"] as [Stats];
    expect([stats.device, stats["node-name"], stats.parent!["node-name"]]).toEqual([
      "e",
      "top",
      "file",
    ]);
    expect(stats.stats).toMatchObject({
      rd_bytes: 2 * KiB,
      rd_operations: 1,
      wr_bytes: 5 * KiB,
      wr_operations: 2,
      unmap_bytes: 4 * KiB,
      unmap_operations: 1,
      flush_operations: 1,
      wr_highest_offset: 12 * KiB,
      idle_time_ns: 7_000_000,
      account_failed: true,
    });
    // tiny writes whole clusters of 4 KiB.
    expect(stats.parent!.stats).toMatchObject({ wr_bytes: 8 * KiB, wr_highest_offset: 8 * KiB });
    expect(stats.backing!["node-name"]).toBe("base");
    // The rest of the cluster that is written in part is taken over from below.
    expect(stats.backing!.stats).toMatchObject({ rd_bytes: 3 * KiB, wr_bytes: 0 });
  });

  it("lists nodes as they are, each with where its data is but not with what shows through", async () => {
    const { qmp } = await exported();
    const nodes = (await qmp.execute("query-blockstats", { "query-nodes": true }))["return"];
    expect((nodes as Stats[]).map(shape)).toEqual([
      "file",
      "top(file)",
      "#block1",
      "base(#block1)",
    ]);
    await qmp.execute("block-export-del", { id: "e" });
    expect((await qmp.execute("query-blockstats"))["return"]).toEqual([]);
  });

  it("counts requests that fail, and those that are out of range, apart", async () => {
    const { qmp, device } = await exported();
    await expect(device.read(new Uint8Array(1), 1e9)).rejects.toMatchObject({ errno: "EINVAL" });
    const { ranges } = qmp.engine.graph.get("top");
    const held = await ranges.acquire(0, 1e6, true);
    const stop = new AbortController();
    const read = device.read(new Uint8Array(4 * KiB), 0, { signal: stop.signal });
    stop.abort();
    await expect(read).rejects.toMatchObject({ errno: "ECANCELED" });
    ranges.release(held);
    const [stats] = (await qmp.execute("query-blockstats"))["return"] as [Stats];
    expect(stats.stats).toMatchObject({
      rd_operations: 0,
      rd_bytes: 0,
      failed_rd_operations: 1,
      invalid_rd_operations: 1,
    });
  });

  it("takes the time of requests from the engine's clock", async () => {
    const { qmp, device } = await exported();
    const node = qmp.engine.graph.get("file");
    const held = await node.ranges.acquire(0, 1e6, true);
    const write = device.write(new Uint8Array(4 * KiB), 0);
    await qmp.clock.advance(30);
    node.ranges.release(held);
    await qmp.clock.runUntil(write);
    const [stats] = (await qmp.execute("query-blockstats"))["return"] as [Stats];
    expect(stats.stats["wr_total_time_ns"]).toBe(30_000_000);
    expect(stats.parent!.stats["wr_total_time_ns"]).toBe(30_000_000);
  });
});

describe("block-set-write-threshold", () => {
  it("tells of the first write that goes beyond, and of no other", async () => {
    const { qmp, device } = await exported();
    await threshold(qmp, "top", 8 * KiB);
    await device.write(new Uint8Array(4 * KiB), 4 * KiB);
    expect(events(qmp)).toEqual([]);
    expect(await shown(qmp)).toMatchObject({ top: 8 * KiB, file: 0 });
    await device.write(new Uint8Array(4 * KiB), 6 * KiB);
    await device.write(new Uint8Array(4 * KiB), 12 * KiB);
    expect(events(qmp)).toEqual([
      { "node-name": "top", "amount-exceeded": 2 * KiB, "write-threshold": 8 * KiB },
    ]);
    expect(await shown(qmp)).toMatchObject({ top: 0 });
  });

  it("counts in bytes of the node: a file grows as clusters are allocated", async () => {
    const { qmp, device } = await exported();
    await threshold(qmp, "file", 4 * KiB);
    await device.write(new Uint8Array(1).fill(1), 60 * KiB);
    expect(events(qmp)).toEqual([]);
    await device.write(new Uint8Array(1 * KiB).fill(1), 1 * KiB);
    expect(events(qmp)).toEqual([
      { "node-name": "file", "amount-exceeded": 4 * KiB, "write-threshold": 4 * KiB },
    ]);
  });

  it("is armed anew by each command, and disarmed by 0", async () => {
    const { qmp, device } = await exported();
    await threshold(qmp, "top", 1);
    await threshold(qmp, "top", 0);
    await device.write(new Uint8Array(4 * KiB), 0);
    expect(events(qmp)).toEqual([]);
    await threshold(qmp, "nope", 1);
    await threshold(qmp, "top", -1);
    expect(qmp.received.slice(-2).every((reply) => "error" in reply)).toBe(true);
  });
});

describe("change-backing-file", () => {
  it("writes another name into the header, of a read-only image too, and changes no link", async () => {
    const qmp = await (await conversation()).negotiated();
    await qmp.execute(
      "blockdev-add",
      node("top", { backing: node("mid", { backing: node("base") }) }),
    );
    const change = (device: string, image: string, name: string) =>
      qmp.execute("change-backing-file", {
        device,
        "image-node-name": image,
        "backing-file": name,
      });
    expect(await change("top", "mid", "moved/base")).toEqual({ return: {} });
    expect(await change("top", "top", "mid2")).toEqual({ return: {} });
    expect(labels(await qmp.execute("query-named-block-nodes"))).toEqual({
      top: "mid2",
      mid: "moved/base",
      base: undefined,
    });
    expect(qmp.engine.graph.get("mid").readOnly).toBe(true);
    await change("top", "top", "");
    expect(labels(await qmp.execute("query-named-block-nodes"))["top"]).toBeUndefined();
    expect(qmp.engine.graph.get("top").children.get("backing")!.node.name).toBe("mid");
  });

  it("refuses what is not an image with a backing file in the chain of a top", async () => {
    const qmp = await (await conversation()).negotiated();
    await qmp.execute("blockdev-add", node("top", { backing: node("base") }));
    await qmp.execute("blockdev-add", node("other", { backing: node("base2") }));
    await qmp.execute("blockdev-add", node("stiff", { backing: node("base3"), sealed: true }));
    qmp.transcript();
    for (const [device, image] of [
      ["nope", "top"],
      ["base", "top"],
      ["top", "nope"],
      ["top", "base"],
      ["top", "other"],
      ["stiff", "stiff"],
    ]) {
      const args = { device, "image-node-name": image, "backing-file": "x" };
      await qmp.execute("change-backing-file", args);
    }
    const errors = qmp.received.slice(-6).map(({ error }) => (error as { desc: string }).desc);
    expect(errors).toEqual([
      "Cannot find device or node 'nope'",
      "Node 'base' is not the top of a chain: node 'top' uses it",
      "Cannot find node 'nope'",
      "Node 'base' has no backing file whose name could be changed",
      "Node 'other' is not in the chain of 'top'",
      "The header cannot be written",
    ]);
  });
});

interface Stats {
  readonly device?: string;
  readonly "node-name": string;
  readonly stats: Record<string, unknown>;
  readonly parent?: Stats;
  readonly backing?: Stats;
}

function shape({ "node-name": name, parent, backing }: Stats): string {
  const inner = [parent, backing].filter((stats) => stats !== undefined).map(shape);
  return inner.length > 0 ? `${name}(${inner.join(" ")})` : name;
}

function node(name: string, more: object = {}): object {
  return {
    driver: "tiny",
    "node-name": name,
    size: 64 * KiB,
    "cluster-size": 4 * KiB,
    file: { driver: "memory", size: 0 },
    ...more,
  };
}

/** A small chain with an export, and a device that does what the export's users do. */
async function exported() {
  const qmp = await (await conversation()).negotiated();
  const file = { driver: "memory", "node-name": "file", size: 0 };
  await qmp.execute("blockdev-add", node("top", { file, backing: node("base") }));
  await qmp.execute("block-export-add", {
    type: "message-port",
    id: "e",
    "node-name": "top",
    writable: true,
  });
  qmp.transcript();
  const device = qmp.engine.graph.backends.find(({ name }) => name === "e")!;
  expect(device.edge.permissions.take & Perm.write).not.toBe(0);
  return { qmp, device };
}

async function threshold(qmp: Conversation, name: string, offset: number): Promise<void> {
  await qmp.execute("block-set-write-threshold", {
    "node-name": name,
    "write-threshold": offset,
  });
}

function events(qmp: Conversation): unknown[] {
  return qmp.received
    .filter(({ event }) => event === "BLOCK_WRITE_THRESHOLD")
    .map(({ data }) => data);
}

async function shown(qmp: Conversation): Promise<Record<string, number>> {
  const nodes = (await qmp.execute("query-named-block-nodes"))["return"] as Wire[];
  return Object.fromEntries(nodes.map((info) => [info["node-name"], info["write_threshold"]]));
}

function labels(reply: Wire): Record<string, string | undefined> {
  const nodes = reply["return"] as { "node-name": string; image: Record<string, string> }[];
  const images = nodes.filter(({ image }) => image["format"] === "tiny");
  return Object.fromEntries(
    images.map(({ "node-name": name, image }) => [name, image["backing-filename"]]),
  );
}

it("x-debug-query-block-graph shows who takes and shares what", async () => {
  const { qmp } = await exported();
  const graph = (await qmp.execute("x-debug-query-block-graph"))["return"] as {
    nodes: { id: number; type: string; name: string }[];
    edges: { parent: number; child: number; name: string; perm: string[] }[];
  };
  const nameOf = (id: number) => graph.nodes.find((node) => node.id === id)!.name;
  expect(graph.nodes[0]).toMatchObject({ type: "block-backend", name: "e" });
  expect(
    graph.edges.map(({ parent, child, name, perm }) =>
      [nameOf(parent), name, nameOf(child), perm].join(" "),
    ),
  ).toEqual([
    "e root top consistent-read,write",
    "top file file consistent-read,write,resize",
    "top backing base consistent-read",
    "base file #block1 consistent-read",
  ]);
});
