/** transaction as a client types it: all of its actions, or none. */

import { describe, expect, it } from "vitest";
import type { BlockDriver } from "../../src/block/driver.ts";
import { qcow2Driver } from "../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../src/drivers/format/raw.ts";
import { type Conversation, conversation, type Wire } from "./conversation.ts";

const MiB = 1024 * 1024;

describe("transaction", () => {
  it("#42 rolls back two backups, newest first, when the third action cannot be done", async () => {
    const qmp = await disks();
    await qmp.execute("transaction", {
      actions: [backup("b0", "t0"), backup("b1", "t1"), { type: "abort", data: {} }],
    });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"transaction","arguments":{"actions":[{"type":"blockdev-backup","data":{"job-id":"b0","device":"disk","target":"t0","sync":"full"}},{"type":"blockdev-backup","data":{"job-id":"b1","device":"disk","target":"t1","sync":"full"}},{"type":"abort","data":{}}]}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b1","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b1","status":"aborting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b1","status":"concluded"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b1","status":"null"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"aborting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"concluded"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"null"}}
      <- {"error":{"class":"GenericError","desc":"Transaction aborted by its 'abort' action"}}
      "
    `);
    await leavesNothing(qmp);
  });

  it("rolls back a group of two the same way, where QEMU waits for ever", async () => {
    const qmp = await disks();
    const reply = await qmp.execute("transaction", {
      actions: [backup("b0", "t0"), backup("b1", "t1"), backup("b0", "t2")],
      properties: { "completion-mode": "grouped" },
    });
    expect(reply).toMatchObject({ error: { desc: "Job ID 'b0' is already in use" } });
    expect(statuses(qmp)).toEqual([
      ..."b0 created,b1 created,b1 aborting,b1 concluded,b1 null".split(","),
      ..."b0 aborting,b0 concluded,b0 null".split(","),
    ]);
    await leavesNothing(qmp);
  });

  it("#43 does not let a group hold what is no job, before anything is done", async () => {
    const qmp = await disks();
    await qmp.execute("transaction", {
      actions: [
        backup("b0", "t0"),
        { type: "block-dirty-bitmap-add", data: { node: "disk", name: "b" } },
      ],
      properties: { "completion-mode": "grouped" },
    });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"transaction","arguments":{"actions":[{"type":"blockdev-backup","data":{"job-id":"b0","device":"disk","target":"t0","sync":"full"}},{"type":"block-dirty-bitmap-add","data":{"node":"disk","name":"b"}}],"properties":{"completion-mode":"grouped"}}}
      <- {"error":{"class":"GenericError","desc":"Action 'block-dirty-bitmap-add' does not go with 'completion-mode': 'grouped'"}}
      "
    `);
  });

  it("#45 lets an action see what those before it did", async () => {
    const qmp = await disks();
    await qmp.execute("block-dirty-bitmap-add", { node: "disk", name: "old" });
    const on = (type: string, data: object) => ({ type: `block-dirty-bitmap-${type}`, data });
    const done = await qmp.execute("transaction", {
      actions: [
        on("add", { node: "disk", name: "new" }),
        on("merge", { node: "disk", target: "new", bitmaps: ["old"] }),
        on("disable", { node: "disk", name: "old" }),
      ],
    });
    expect(done).toMatchObject({ return: {} });
    expect(await bitmaps(qmp)).toEqual(["new on", "old off"]);

    const again = await qmp.execute("transaction", {
      actions: [
        on("remove", { node: "disk", name: "old" }),
        on("add", { node: "disk", name: "old" }),
      ],
    });
    expect(again).toMatchObject({ error: { desc: expect.stringMatching(/'old'.*already/) } });
    expect(await bitmaps(qmp)).toEqual(["new on", "old off"]);
  });

  it("#44 leaves bitmaps, nodes and snapshots as they were when it is aborted", async () => {
    const qmp = await disks();
    await qmp.execute("block-dirty-bitmap-add", { node: "disk", name: "b" });
    const before = await images(qmp);
    const name = { node: "disk", name: "b" };
    const refused = await qmp.execute("transaction", {
      actions: [
        { type: "block-dirty-bitmap-disable", data: name },
        { type: "block-dirty-bitmap-clear", data: name },
        { type: "block-dirty-bitmap-enable", data: name },
        { type: "block-dirty-bitmap-add", data: { node: "disk", name: "c" } },
        { type: "block-dirty-bitmap-merge", data: { node: "disk", target: "c", bitmaps: ["b"] } },
        { type: "block-dirty-bitmap-remove", data: name },
        { type: "blockdev-snapshot-internal-sync", data: { device: "disk", name: "s" } },
        { type: "blockdev-snapshot", data: { node: "t0", overlay: "t1" } },
        { type: "abort", data: {} },
      ],
    });
    expect(refused).toMatchObject({ error: { class: "GenericError" } });
    expect(await images(qmp)).toEqual(before);
  });

  it("does them all when nothing is in the way", async () => {
    const qmp = await disks();
    const done = await qmp.execute("transaction", {
      actions: [
        { type: "block-dirty-bitmap-add", data: { node: "disk", name: "b" } },
        { type: "blockdev-snapshot-internal-sync", data: { device: "disk", name: "s" } },
        backup("b0", "t0"),
        { type: "blockdev-snapshot", data: { node: "disk", overlay: "t1" } },
      ],
    });
    expect(done).toMatchObject({ return: {} });
    await qmp.clock.advance(1000);
    expect(statuses(qmp).slice(-3)).toEqual(["b0 pending", "b0 concluded", "b0 null"]);
    const { return: nodes } = await qmp.execute("query-named-block-nodes", { flat: true });
    const all = nodes as { "node-name": string; backing_file?: string; image: object }[];
    expect(all.find((node) => node["node-name"] === "disk")).toMatchObject({
      image: { snapshots: [{ name: "s" }] },
      ro: true,
    });
    expect(await bitmaps(qmp)).toEqual(["b on"]);
  });

  it("gives an overlay its bitmap before it takes its place, as libvirt does, or neither", async () => {
    const qmp = await disks();
    const before = await images(qmp);
    const add = { node: "t1", name: "b", persistent: true };
    const actions = [
      { type: "block-dirty-bitmap-add", data: add },
      { type: "blockdev-snapshot", data: { node: "disk", overlay: "t1" } },
    ];
    const refused = await qmp.execute("transaction", {
      actions: [...actions, { type: "abort", data: {} }],
    });
    expect(refused).toMatchObject({ error: { desc: expect.stringContaining("aborted") } });
    expect(await images(qmp)).toEqual(before);
    expect(await qmp.execute("transaction", { actions })).toMatchObject({ return: {} });
    const { backend } = qmp.engine.exports.get("guest");
    expect(backend.node.name).toBe("t1");
    await qmp.clock.runUntil(backend.write(new Uint8Array(65_536).fill(1), 0));
    const overlay = (await images(qmp)).find((node) => (node as Wire)["node-name"] === "t1");
    expect(overlay).toMatchObject({
      "dirty-bitmaps": [{ name: "b", recording: true, count: 65_536 }],
    });
  });

  it("does not take an overlay that a job of the same transaction reads", async () => {
    const qmp = await disks();
    const job = { "job-id": "b0", device: "t1", target: "t0", sync: "full" };
    const refused = await qmp.execute("transaction", {
      actions: [
        { type: "blockdev-backup", data: job },
        { type: "blockdev-snapshot", data: { node: "disk", overlay: "t1" } },
      ],
    });
    expect(refused).toMatchObject({ error: { desc: expect.stringContaining("in use") } });
    await leavesNothing(qmp);
  });

  it("makes the targets of drive-backup, and takes none of the graph with it on failure", async () => {
    const qmp = await disks();
    const drive = (id: string, target: string) => ({
      type: "drive-backup",
      data: { "job-id": id, device: "disk", target, sync: "full", format: "qcow2" },
    });
    const failed = await qmp.execute("transaction", {
      actions: [drive("d0", "memory:copy0"), drive("d1", "nowhere:copy1")],
    });
    expect(failed).toMatchObject({ error: { desc: expect.stringContaining("nowhere:copy1") } });
    await leavesNothing(qmp);
    const done = await qmp.execute("transaction", { actions: [drive("d0", "memory:copy0")] });
    expect(done).toMatchObject({ return: {} });
    await qmp.clock.advance(1000);
    expect(statuses(qmp).at(-1)).toBe("d0 null");
    await leavesNothing(qmp);
    const opened = await qmp.execute("blockdev-add", {
      driver: "qcow2",
      "node-name": "copy0",
      file: { driver: "memory", name: "copy0" },
      backing: null,
    });
    expect(opened).toMatchObject({ return: {} });
  });

  it("is alone: what another monitor changes comes before or after it", async () => {
    const qmp = await disks();
    const heard: Wire[] = [];
    const other = qmp.engine.openMonitor((message) => void heard.push(message as Wire));
    other.receive({ execute: "qmp_capabilities" });
    await other.idle();
    const name = { node: "disk", name: "c" };
    const refused = qmp.execute("transaction", {
      actions: [
        { type: "block-dirty-bitmap-add", data: name },
        { type: "blockdev-snapshot-internal-sync", data: { device: "disk", name: "s" } },
        { type: "abort", data: {} },
      ],
    });
    // It is in the middle of its second action: the bitmap is there to be seen.
    await until(() => qmp.engine.graph.get("disk").bitmaps.find("c") !== undefined);
    other.receive({ execute: "block-dirty-bitmap-remove", arguments: name });
    expect(await refused).toMatchObject({ error: { desc: expect.stringContaining("aborted") } });
    await other.idle();
    expect(heard.at(-1)).toMatchObject({
      error: { desc: expect.stringContaining("no bitmap 'c'") },
    });
    expect(qmp.engine.stopped).toBeNull();
  });

  it.each([
    ["an unknown action", { type: "defragment", data: {} }, /'actions\[0\].type'.*defragment/],
    ["wrong data", { type: "blockdev-snapshot", data: { node: 1 } }, /'actions\[0\].data.node'/],
    ["missing data", { type: "abort" }, /'actions\[0\].data' is missing/],
  ])("refuses %s by its name", async (_name, action, text) => {
    const qmp = await disks();
    const reply = await qmp.execute("transaction", { actions: [action] });
    expect(reply).toMatchObject({ error: { desc: expect.stringMatching(text) } });
  });
});

describe("drive-mirror", () => {
  it("makes its target, and moves the disk there when it is completed", async () => {
    const qmp = await disks();
    await qmp.execute("drive-mirror", {
      "job-id": "m0",
      device: "disk",
      target: "memory:moved",
      sync: "full",
      format: "qcow2",
      "node-name": "moved",
    });
    await qmp.clock.advance(1000);
    await qmp.execute("job-complete", { id: "m0" });
    await qmp.clock.advance(1000);
    expect(statuses(qmp).at(-1)).toBe("m0 null");
    const { return: exports } = await qmp.execute("query-block-exports");
    expect(exports).toMatchObject([{ "node-name": "moved" }]);
  });

  it("closes what it made if it cannot start", async () => {
    const qmp = await disks();
    const reply = await qmp.execute("drive-mirror", {
      "job-id": "m0",
      device: "disk",
      target: "memory:moved",
      sync: "full",
      granularity: 3000,
    });
    expect(reply).toMatchObject({ error: { desc: expect.stringContaining("granularity") } });
    await leavesNothing(qmp);
  });
});

function backup(id: string, target: string) {
  return {
    type: "blockdev-backup",
    data: { "job-id": id, device: "disk", target, sync: "full" },
  };
}

/** Node disk with a writer above it, and empty targets t0 to t2, all of one size. */
async function disks(): Promise<Conversation> {
  const drivers = [qcow2Driver(), rawDriver()] as BlockDriver[];
  const qmp = await (await conversation(drivers)).negotiated();
  for (const name of ["disk", "t0", "t1", "t2"]) {
    const store = { driver: "memory", name: `${name}-store` };
    await qmp.execute("blockdev-create", { "job-id": "c", options: { ...store, size: 0 } });
    await qmp.clock.advance(0);
    await qmp.execute("job-dismiss", { id: "c" });
    await qmp.execute("blockdev-add", { ...store, "node-name": `${name}-file` });
    const options = { driver: "qcow2", file: `${name}-file`, size: MiB };
    await qmp.execute("blockdev-create", { "job-id": "c", options });
    await qmp.clock.advance(0);
    await qmp.execute("job-dismiss", { id: "c" });
    const opened = { driver: "qcow2", file: `${name}-file`, backing: null };
    await qmp.execute("blockdev-add", { ...opened, "node-name": name });
  }
  const device = { type: "message-port", id: "guest", "node-name": "disk", writable: true };
  await qmp.execute("block-export-add", device);
  qmp.transcript();
  qmp.received.length = 0;
  return qmp;
}

async function until(isTrue: () => boolean): Promise<void> {
  for (let turns = 0; !isTrue(); turns++) {
    expect(turns).toBeLessThan(1000);
    await Promise.resolve();
  }
}

/** "b0 created", … */
function statuses(qmp: Conversation): string[] {
  return qmp.received
    .filter(({ event }) => event === "JOB_STATUS_CHANGE")
    .map(({ data }) => `${(data as Wire)["id"]} ${(data as Wire)["status"]}`);
}

/** All that can be seen of the images; their files have grown and shrunk again inside. */
async function images(qmp: Conversation): Promise<object[]> {
  const { return: nodes } = await qmp.execute("query-named-block-nodes", { flat: true });
  return (nodes as { drv: string }[]).filter(({ drv }) => drv === "qcow2");
}

async function bitmaps(qmp: Conversation): Promise<string[]> {
  const { return: nodes } = await qmp.execute("query-named-block-nodes", { flat: true });
  const all = nodes as {
    "node-name": string;
    "dirty-bitmaps"?: { name: string; recording: boolean }[];
  }[];
  const disk = all.find((node) => node["node-name"] === "disk");
  return (disk?.["dirty-bitmaps"] ?? []).map(
    ({ name, recording }) => `${name} ${recording ? "on" : "off"}`,
  );
}

/** No job, and no node but those that disks() has made. */
async function leavesNothing(qmp: Conversation): Promise<void> {
  expect(await qmp.execute("query-jobs")).toMatchObject({ return: [] });
  const { return: nodes } = await qmp.execute("query-named-block-nodes", { flat: true });
  const names = (nodes as { "node-name": string }[]).map((node) => node["node-name"]);
  const made = ["disk", "t0", "t1", "t2"].flatMap((name) => [`${name}-file`, name]);
  expect(names.sort()).toEqual(made.sort());
}
