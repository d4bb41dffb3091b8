import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { Graph } from "../../src/block/graph.ts";
import { Perm } from "../../src/block/permissions.ts";
import { chainOf } from "../../src/block/status.ts";
import { externalSnapshot, externalSnapshotSync } from "../../src/blockjob/external-snapshot.ts";
import { runTransaction } from "../../src/blockjob/transaction.ts";
import { qcow2Driver } from "../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../src/drivers/format/raw.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { tinyFormat } from "../block/tiny-format.ts";
import { faultyDriver } from "../blockjob/faulty.ts";
import {
  hasQemu,
  qemuImg,
  qemuRaw,
  testFolder,
  testGraph,
  testWorld,
} from "../drivers/format/rig.ts";
import { Conversation, testEngine } from "./conversation.ts";

const folder = testFolder();
const SIZE = 1 * MiB;

describe("blockdev-snapshot", () => {
  it("puts an overlay over all users of a node, which nobody writes any more", async () => {
    const { qmp, graph, disk } = await started();
    await disk.write(new Uint8Array(SIZE).fill(1), 0);
    await addOverlay(qmp, "over");
    qmp.transcript();
    await qmp.execute("blockdev-snapshot", { node: "base", overlay: "over" });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"blockdev-snapshot","arguments":{"node":"base","overlay":"over"}}
      <- {"return":{}}
      "
    `);
    expect(chainOf(disk.node).map(({ name }) => name)).toEqual(["over", "base"]);
    expect(graph.get("base").readOnly).toBe(true);
    expect(graph.get("base").children.get("file")!.node.readOnly).toBe(true);
    await disk.write(new Uint8Array(64 * KiB).fill(2), 128 * KiB);
    const all = new Uint8Array(SIZE);
    await disk.read(all, 0);
    expect([all[0], all[128 * KiB], all[192 * KiB]]).toEqual([1, 2, 1]);
    expect((await contentOf(graph, "base"))[128 * KiB]).toBe(1);
  });

  it("does not mind who reads the node, and leaves it writable for who writes to it", async () => {
    const { qmp, graph } = await started();
    const job = graph.openBackend(graph.get("base").children.get("file")!.node, {
      name: "reader",
      description: "device 'reader'",
      permissions: { take: Perm.none, share: Perm.all },
    });
    await addOverlay(qmp, "over");
    await qmp.execute("blockdev-snapshot", { node: "vda", overlay: "over" });
    expect(graph.get("base").readOnly).toBe(true);
    await graph.closeBackend(job);
  });

  it("refuses overlays that do not fit, and changes nothing then", async () => {
    const { qmp, graph, disk } = await started();
    await addOverlay(qmp, "small", { size: SIZE / 2 });
    await addOverlay(qmp, "busy");
    await addOverlay(qmp, "full");
    await addOverlay(qmp, "late", { readOnly: true });
    await qmp.execute("blockdev-add", { driver: "raw", "node-name": "raw", file: memory(SIZE) });
    await qmp.execute("blockdev-snapshot", { node: "busy", overlay: "full" });
    qmp.transcript();
    const attempt = (node: string, overlay: string) =>
      qmp.execute("blockdev-snapshot", { node, overlay });
    for (const overlay of ["none", "base", "small", "busy", "full", "raw", "late"]) {
      await attempt("base", overlay);
    }
    await attempt("none", "small");
    expect(
      qmp
        .transcript()
        .split("\n")
        .filter((line) => line.includes("error")),
    ).toEqual(
      [
        "Cannot find node 'none'",
        "Node 'base' cannot be its own overlay",
        "The overlay 'small' has 524288 bytes; node 'base' has 1048576, and would be cut off",
        "The overlay 'busy' is in use by node 'full'",
        "The overlay 'full' has a backing file, node 'busy', already: open it with 'backing': null",
        "Driver 'raw' of the overlay 'raw' has no backing files",
        "Node 'late' is read-only, but device 'vda' (as 'root') needs write",
        "Cannot find device or node 'none'",
      ].map((desc) => `<- ${JSON.stringify({ error: { class: "GenericError", desc } })}`),
    );
    expect(disk.node.name).toBe("base");
    expect(graph.get("base").readOnly).toBe(false);
    expect(graph.get("late").children.has("backing")).toBe(false);
    await disk.write(new Uint8Array(512), 0);
  });

  it("is not taken of what could not be made to last", async () => {
    const faulty = faultyDriver("faulty");
    const drivers = [memoryDriver(), tinyFormat, faulty] as unknown as BlockDriver[];
    const graph = new Graph(await testWorld(), drivers);
    const tiny = (name: string, driver: string) => ({
      driver: "tiny",
      "node-name": name,
      file: { driver, size: 0 },
      size: SIZE,
      "cluster-size": 4096,
    });
    await graph.add(tiny("base", "faulty"));
    await graph.add(tiny("over", "memory"));
    const disk = open(graph, "base", "vda");
    await disk.write(new Uint8Array(100), 0);
    faulty.fault = { op: "flush", errno: "EIO" };
    const snapshot = () =>
      runTransaction([externalSnapshot(graph, { node: "base", overlay: "over" })]);
    await expect(snapshot()).rejects.toMatchObject({ errno: "EIO" });
    expect(disk.node.name).toBe("base");
    faulty.fault = null;
    await disk.write(new Uint8Array(100), 0);
    await snapshot();
    expect(disk.node.name).toBe("over");
  });

  it("is taken back by a transaction that fails later", async () => {
    const { qmp, graph, disk } = await started();
    await disk.write(new Uint8Array(100).fill(1), 0);
    await addOverlay(qmp, "over");
    const one = externalSnapshot(graph, { node: "base", overlay: "over" });
    const wrong = externalSnapshot(graph, { node: "over", overlay: "none" });
    await expect(runTransaction([one, wrong])).rejects.toThrow("Cannot find node 'none'");
    expect(disk.node.name).toBe("base");
    expect(graph.get("base").readOnly).toBe(false);
    expect(graph.get("over").children.has("backing")).toBe(false);
    await disk.write(new Uint8Array(100).fill(2), 0);
    await qmp.execute("blockdev-del", { "node-name": "over" });
    expect(graph.find("over")).toBeUndefined();
  });
});

describe("blockdev-snapshot-sync", () => {
  it("makes the overlay in the store it is told, and its header names what is below", async () => {
    const { qmp, graph, disk } = await started();
    await disk.write(new Uint8Array(SIZE).fill(1), 0);
    await qmp.execute("blockdev-snapshot-sync", {
      device: "vda",
      "snapshot-file": "memory:over",
      "snapshot-node-name": "over",
    });
    expect(chainOf(disk.node).map(({ name }) => name)).toEqual(["over", "base"]);
    expect(graph.get("over").state.info?.()).toMatchObject({
      "backing-filename": "base",
      "backing-filename-format": "qcow2",
    });
    expect(graph.get("base").readOnly).toBe(true);
    await disk.write(new Uint8Array(512).fill(2), 0);
    expect((await contentOf(graph, "base"))[0]).toBe(1);
    qmp.transcript();
    await qmp.execute("blockdev-del", { "node-name": "over" });
    expect(qmp.transcript()).toContain("Node 'over' is not owned by the monitor");
  });

  it("takes the store of the node's own file where it is told none, again and again", async () => {
    const { qmp, disk } = await started();
    for (const name of ["one", "two", "three"]) {
      const reply = await qmp.execute("blockdev-snapshot-sync", {
        device: "vda",
        "snapshot-file": name,
      });
      expect(reply).toEqual({ return: {} });
    }
    expect(chainOf(disk.node)).toHaveLength(4);
  });

  it("opens an overlay that is there with mode existing", async () => {
    const { qmp, graph, disk } = await started();
    await create(qmp, "there", SIZE);
    await qmp.execute("blockdev-snapshot-sync", {
      "node-name": "base",
      "snapshot-file": "memory:there",
      "snapshot-node-name": "over",
      mode: "existing",
    });
    expect(chainOf(disk.node).map(({ name }) => name)).toEqual(["over", "base"]);
    expect(graph.get("over").state.info?.()["backing-filename"]).toBeUndefined();
  });

  it("says what is wrong, never empties a file in use, and leaves no node behind", async () => {
    const { qmp, graph, disk } = await started();
    await disk.write(new Uint8Array(100).fill(7), 0);
    const nodes = () => graph.nodes.map(({ name }) => name);
    const before = nodes();
    qmp.transcript();
    const attempt = (args: object) =>
      qmp.execute("blockdev-snapshot-sync", {
        device: "vda",
        "snapshot-file": "memory:new",
        ...args,
      });
    await attempt({ "snapshot-file": "memory:disk" });
    await attempt({ "snapshot-file": "tape:x" });
    await attempt({ "snapshot-node-name": "base" });
    await attempt({ format: "raw" });
    await attempt({ format: "vmdk" });
    await attempt({ mode: "existing", "snapshot-file": "memory:none" });
    await attempt({ device: undefined });
    await attempt({ "node-name": "base" });
    await attempt({ device: undefined, "node-name": "base" });
    await attempt({ device: "none" });
    const errors = qmp
      .transcript()
      .split("\n")
      .filter((line) => line.includes('"error"'));
    expect(errors.map((line) => JSON.parse(line.slice(3)).error.desc)).toEqual([
      expect.stringMatching(/^Node '#block\d+' has 'disk' open already$/),
      "No image can be made as 'tape:x': begin its name with one of memory:",
      "There is a node 'base' already",
      "Format 'raw' has no 'backing-file'",
      expect.stringMatching(/^Unknown driver 'vmdk'/),
      "There is no memory store 'none'; create it first",
      "Give either 'device' or 'node-name'",
      "Give either 'device' or 'node-name'",
      "Parameter 'snapshot-node-name' is missing",
      "Cannot find device or node 'none'",
    ]);
    expect(nodes()).toEqual(before);
    const head = new Uint8Array(100);
    await disk.read(head, 0);
    expect(head.every((byte) => byte === 7)).toBe(true);
  });

  it("closes the overlay it has opened when a transaction fails later", async () => {
    const { graph, disk } = await started();
    const before = graph.nodes.length;
    const more = { snapshotFile: "memory:x", format: "qcow2", mode: "absolute-paths" } as const;
    const one = externalSnapshotSync(graph, { node: "base", snapshotNodeName: "over", ...more });
    const wrong = externalSnapshot(graph, { node: "over", overlay: "none" });
    await expect(runTransaction([one, wrong])).rejects.toThrow("Cannot find node 'none'");
    expect(graph.nodes).toHaveLength(before);
    expect(disk.node.name).toBe("base");
  });

  it.skipIf(!hasQemu)("makes chains that QEMU reads", async () => {
    // Without a monitor: real files take real time.
    const graph = await testGraph();
    qemuImg(folder, "create", "-f", "qcow2", "one.qcow2", "1M");
    const file = { driver: "file", filename: join(folder, "one.qcow2") };
    await graph.add({ driver: "qcow2", "node-name": "one", file });
    const disk = open(graph, "one", "vdb");
    const model = new Uint8Array(SIZE);
    for (const [i, name] of ["two", "three"].entries()) {
      const piece = new Uint8Array(100_000).fill(i + 1);
      await disk.write(piece, i * 70_000);
      model.set(piece, i * 70_000);
      const snapshotFile = join(folder, `${name}.qcow2`);
      const more = { format: "qcow2", mode: "absolute-paths" } as const;
      await runTransaction([externalSnapshotSync(graph, { node: "vdb", snapshotFile, ...more })]);
    }
    await disk.write(new Uint8Array(5).fill(9), 3);
    model.fill(9, 3, 8);
    await disk.flush();
    await graph.closeBackend(disk);
    await graph.remove("one");
    const info = JSON.parse(
      qemuImg(folder, "info", "--output=json", "--backing-chain", "three.qcow2"),
    );
    expect(info.map(({ filename }: { filename: string }) => filename.split("/").at(-1))).toEqual([
      "three.qcow2",
      "two.qcow2",
      "one.qcow2",
    ]);
    expect(Buffer.compare(qemuRaw(folder, "three.qcow2"), model)).toBe(0);
  });
});

describe("block_resize", () => {
  it("makes a disk larger under its device, and smaller", async () => {
    const { qmp, disk } = await started();
    qmp.transcript();
    await qmp.execute("block_resize", { device: "vda", size: 2 * SIZE });
    await qmp.execute("block_resize", { "node-name": "base", size: SIZE });
    await qmp.execute("block_resize", { "node-name": "base", size: 2 * SIZE + 1 });
    await qmp.execute("block_resize", { "node-name": "base", size: -1 });
    await qmp.execute("block_resize", { device: "none", size: 0 });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"block_resize","arguments":{"device":"vda","size":2097152}}
      <- {"return":{}}
      -> {"execute":"block_resize","arguments":{"node-name":"base","size":1048576}}
      <- {"return":{}}
      -> {"execute":"block_resize","arguments":{"node-name":"base","size":2097153}}
      <- {"error":{"class":"GenericError","desc":"The new size must be a multiple of 512"}}
      -> {"execute":"block_resize","arguments":{"node-name":"base","size":-1}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'size' expects >=0; got -1"}}
      -> {"execute":"block_resize","arguments":{"device":"none","size":0}}
      <- {"error":{"class":"GenericError","desc":"Cannot find device or node 'none'"}}
      "
    `);
    expect(disk.length).toBe(SIZE);
    await qmp.execute("block_resize", { device: "vda", size: 2 * SIZE });
    await disk.write(new Uint8Array(10).fill(1), 2 * SIZE - 10);
  });

  it("waits for whoever does not share it, by name", async () => {
    const { qmp, graph } = await started();
    const permissions = { take: Perm.none, share: Perm.all & ~Perm.resize };
    const job = { name: "", description: "job 'b'", permissions };
    const holder = graph.openBackend(graph.get("base"), job);
    qmp.transcript();
    await qmp.execute("block_resize", { device: "vda", size: 2 * SIZE });
    expect(qmp.transcript()).toContain("needs resize, which job 'b'");
    await graph.closeBackend(holder);
  });

  it("#89 #106 #124 is refused while a job has the node, as are snapshots and its removal", async () => {
    const { qmp, graph, disk } = await started();
    await disk.write(new Uint8Array(SIZE).fill(1), 0);
    await qmp.execute("blockdev-snapshot-sync", {
      device: "vda",
      "snapshot-file": "memory:over",
      "snapshot-node-name": "over",
    });
    await addOverlay(qmp, "more");
    await qmp.execute("block-stream", { device: "over", "job-id": "s", "auto-finalize": false });
    for (let i = 0; i < 50 && !graphIsPending(qmp); i++) await qmp.clock.advance(100);
    qmp.transcript();
    const refused = [
      await qmp.execute("block_resize", { "node-name": "over", size: 2 * SIZE }),
      await qmp.execute("block_resize", { device: "vda", size: 2 * SIZE }),
      await qmp.execute("blockdev-snapshot", { node: "over", overlay: "more" }),
      await qmp.execute("blockdev-del", { "node-name": "base" }),
    ];
    for (const reply of refused) expect(JSON.stringify(reply)).toContain("job: stream");
    expect(disk.length).toBe(SIZE);
    await qmp.execute("job-finalize", { id: "s" });
    await qmp.clock.advance(1000);
    expect(chainOf(disk.node).map(({ name }) => name)).toEqual(["over"]);
    expect(await qmp.execute("block_resize", { device: "vda", size: 2 * SIZE })).toEqual({
      return: {},
    });
    expect(await qmp.execute("blockdev-del", { "node-name": "base" })).toEqual({ return: {} });
    expect(graph.find("base")).toBeUndefined();
  });
});

function graphIsPending(qmp: Conversation): boolean {
  return qmp.received.some((message) => message["event"] === "BLOCK_JOB_PENDING");
}

function memory(size: number) {
  return { driver: "memory", size };
}

async function create(qmp: Conversation, name: string, size: number): Promise<void> {
  const job = async (id: string, options: object) => {
    await qmp.execute("blockdev-create", { "job-id": id, options });
    await qmp.clock.advance(10);
    await qmp.execute("job-dismiss", { id });
  };
  await job("c1", { driver: "memory", name, size: 0 });
  const node = `${name}-store`;
  await qmp.execute("blockdev-add", { driver: "memory", "node-name": node, name });
  await job("c2", { driver: "qcow2", file: node, size });
  await qmp.execute("blockdev-del", { "node-name": node });
}

async function addOverlay(
  qmp: Conversation,
  name: string,
  { size = SIZE, readOnly = false } = {},
): Promise<void> {
  await create(qmp, name, size);
  const reply = await qmp.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": name,
    "read-only": readOnly,
    file: { driver: "memory", name },
    backing: null,
  });
  expect(reply).toEqual({ return: {} });
}

function open(graph: Graph, node: string, name: string) {
  return graph.openBackend(graph.get(node), {
    name,
    description: `device '${name}'`,
    permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
  });
}

async function contentOf(graph: Graph, node: string): Promise<Uint8Array> {
  const permissions = { take: Perm.consistentRead, share: Perm.all };
  const reader = graph.openBackend(graph.get(node), { name: "r", description: "r", permissions });
  const all = new Uint8Array(SIZE);
  await reader.read(all, 0);
  await graph.closeBackend(reader);
  return all;
}

/** An engine with a qcow2 disk 'base' in memory, as device vda. */
async function started() {
  const drivers = [qcow2Driver(), rawDriver()] as unknown as BlockDriver[];
  const made = await testEngine(drivers);
  const qmp = await new Conversation(made).negotiated();
  const { graph } = made.engine;
  await create(qmp, "disk", SIZE);
  const file = { driver: "memory", name: "disk" };
  await qmp.execute("blockdev-add", { driver: "qcow2", "node-name": "base", file });
  return { qmp, graph, disk: open(graph, "base", "vda") };
}
