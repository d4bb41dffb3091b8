/** blockdev-mirror, block-job-change and active block-commit on the wire. */

import { expect, it } from "vitest";
import { Conversation, conversation, testEngine, type Wire } from "./conversation.ts";

const KIB = 1024;

async function twoDisks(): Promise<Conversation> {
  const c = await (await conversation()).negotiated();
  for (const name of ["src", "dst"]) {
    await c.execute("blockdev-add", { driver: "memory", "node-name": name, size: 256 * KIB });
  }
  c.transcript();
  return c;
}

const jobs = async (c: Conversation): Promise<Wire[]> =>
  (await c.execute("query-block-jobs"))["return"] as Wire[];

it("a mirror from its start to its pivot, event by event", async () => {
  const c = await twoDisks();
  await c.execute("blockdev-mirror", {
    "job-id": "m0",
    device: "src",
    target: "dst",
    sync: "full",
    "target-is-zero": true,
  });
  await c.clock.advance(1);
  expect(c.transcript()).toMatchInlineSnapshot(`
    "
    -> {"execute":"blockdev-mirror","arguments":{"job-id":"m0","device":"src","target":"dst","sync":"full","target-is-zero":true}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"m0","status":"created"}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"m0","status":"running"}}
    <- {"return":{}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"m0","status":"ready"}}
    <- {"event":"BLOCK_JOB_READY","data":{"type":"mirror","device":"m0","len":0,"offset":0,"speed":0}}
    "
  `);
  await c.execute("block-job-complete", { device: "m0" });
  await c.clock.advance(200);
  expect(c.transcript()).toMatchInlineSnapshot(`
    "
    -> {"execute":"block-job-complete","arguments":{"device":"m0"}}
    <- {"return":{}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"m0","status":"waiting"}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"m0","status":"pending"}}
    <- {"event":"BLOCK_JOB_COMPLETED","data":{"type":"mirror","device":"m0","len":0,"offset":0,"speed":0}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"m0","status":"concluded"}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"m0","status":"null"}}
    "
  `);
});

it("#96 block-job-change: synced is told, the same again is fine, back and wrong types are refused", async () => {
  const c = await twoDisks();
  await c.execute("blockdev-mirror", {
    "job-id": "m0",
    device: "src",
    target: "dst",
    sync: "full",
    "auto-dismiss": false,
  });
  await c.clock.advance(10);
  expect(await jobs(c)).toMatchObject([{ type: "mirror", ready: true, "actively-synced": false }]);
  c.transcript();
  const change = (more: object) => c.execute("block-job-change", { id: "m0", ...more });
  await change({ type: "mirror", "copy-mode": "write-blocking" });
  await change({ type: "mirror", "copy-mode": "write-blocking" });
  await change({ type: "mirror", "copy-mode": "background" });
  await change({ type: "backup", "copy-mode": "write-blocking" });
  await c.execute("block-job-change", {
    id: "nope",
    type: "mirror",
    "copy-mode": "write-blocking",
  });
  expect(c.transcript()).toMatchInlineSnapshot(`
    "
    -> {"execute":"block-job-change","arguments":{"id":"m0","type":"mirror","copy-mode":"write-blocking"}}
    <- {"return":{}}
    -> {"execute":"block-job-change","arguments":{"id":"m0","type":"mirror","copy-mode":"write-blocking"}}
    <- {"return":{}}
    -> {"execute":"block-job-change","arguments":{"id":"m0","type":"mirror","copy-mode":"background"}}
    <- {"error":{"class":"GenericError","desc":"A mirror cannot go back from write-blocking to background"}}
    -> {"execute":"block-job-change","arguments":{"id":"m0","type":"backup","copy-mode":"write-blocking"}}
    <- {"error":{"class":"GenericError","desc":"Parameter 'type' does not accept value 'backup'; it takes 'mirror'"}}
    -> {"execute":"block-job-change","arguments":{"id":"nope","type":"mirror","copy-mode":"write-blocking"}}
    <- {"error":{"class":"DeviceNotActive","desc":"Block job 'nope' not found"}}
    "
  `);
  expect(await jobs(c)).toMatchObject([{ "actively-synced": true }]);
  await c.execute("job-cancel", { id: "m0" });
  await c.clock.advance(10);
  c.transcript();
  await change({ type: "mirror", "copy-mode": "write-blocking" });
  expect(c.transcript()).toMatchInlineSnapshot(`
    "
    -> {"execute":"block-job-change","arguments":{"id":"m0","type":"mirror","copy-mode":"write-blocking"}}
    <- {"error":{"class":"GenericError","desc":"'change' does not apply to job 'm0' while it is concluded"}}
    "
  `);
});

it("#100 refuses on the wire what does not fit", async () => {
  const c = await twoDisks();
  const base = { "job-id": "m0", device: "src", target: "dst", sync: "full" };
  for (const more of [
    { sync: "bitmap" },
    { sync: "incremental" },
    { granularity: 100 },
    { granularity: 3000 },
    { granularity: 128 * KIB * KIB },
    { "buf-size": -1 },
    { target: "src" },
    { "copy-mode": "never" },
  ]) {
    const reply = await c.execute("blockdev-mirror", { ...base, ...more });
    expect(reply, JSON.stringify(more)).toHaveProperty("error.class", "GenericError");
  }
  expect(await jobs(c)).toEqual([]);
});

it("takes the whole set of options, and gives a filter its name", async () => {
  const c = new Conversation(await testEngine());
  await c.negotiated();
  for (const name of ["src", "dst"]) {
    await c.execute("blockdev-add", { driver: "memory", "node-name": name, size: 256 * KIB });
  }
  const reply = await c.execute("blockdev-mirror", {
    "job-id": "m0",
    device: "src",
    target: "dst",
    replaces: "src",
    sync: "none",
    speed: 1024,
    granularity: 512,
    "buf-size": 4096,
    "on-source-error": "stop",
    "on-target-error": "enospc",
    "filter-node-name": "flt",
    "copy-mode": "write-blocking",
    "auto-finalize": false,
    "auto-dismiss": false,
    "target-is-zero": false,
  });
  expect(reply).toHaveProperty("return");
  const nodes = (await c.execute("query-named-block-nodes"))["return"] as Wire[];
  expect(nodes.find((node) => node["node-name"] === "flt")).toMatchObject({ drv: "mirror_top" });
  expect(await jobs(c)).toMatchObject([
    { device: "m0", type: "mirror", "actively-synced": true, "auto-finalize": false, speed: 1024 },
  ]);
  await c.execute("job-cancel", { id: "m0" });
});
