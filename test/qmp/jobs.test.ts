/**
 * block-stream and the verbs, as a client types them. Images are of the tiny test format; what the
 * job does to real ones is in test/blockjob/ and test/e2e/.
 */

import { describe, expect, it } from "vitest";
import { type Conversation, conversation } from "./conversation.ts";

const CHUNK = 512 * 1024;

describe("a job that there is not", () => {
  it("#21 is a GenericError to job-*, DeviceNotActive to block-job-*", async () => {
    const qmp = await (await conversation()).negotiated();
    for (const verb of ["pause", "resume", "cancel", "complete", "finalize", "dismiss"]) {
      await qmp.execute(`job-${verb}`, { id: "nope" });
    }
    await qmp.execute("block-job-set-speed", { device: "nope", speed: 0 });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"job-pause","arguments":{"id":"nope"}}
      <- {"error":{"class":"GenericError","desc":"Job 'nope' not found"}}
      -> {"execute":"job-resume","arguments":{"id":"nope"}}
      <- {"error":{"class":"GenericError","desc":"Job 'nope' not found"}}
      -> {"execute":"job-cancel","arguments":{"id":"nope"}}
      <- {"error":{"class":"GenericError","desc":"Job 'nope' not found"}}
      -> {"execute":"job-complete","arguments":{"id":"nope"}}
      <- {"error":{"class":"GenericError","desc":"Job 'nope' not found"}}
      -> {"execute":"job-finalize","arguments":{"id":"nope"}}
      <- {"error":{"class":"GenericError","desc":"Job 'nope' not found"}}
      -> {"execute":"job-dismiss","arguments":{"id":"nope"}}
      <- {"error":{"class":"GenericError","desc":"Job 'nope' not found"}}
      -> {"execute":"block-job-set-speed","arguments":{"device":"nope","speed":0}}
      <- {"error":{"class":"DeviceNotActive","desc":"Block job 'nope' not found"}}
      "
    `);
  });

  it("is what a create job is to block-job-set-speed", async () => {
    const qmp = await (await conversation()).negotiated();
    const options = { driver: "memory", name: "m", size: 0 };
    await qmp.execute("blockdev-create", { "job-id": "j", options });
    const reply = await qmp.execute("block-job-set-speed", { device: "j", speed: 0 });
    expect(reply).toMatchObject({ error: { class: "DeviceNotActive" } });
  });
});

describe("block-stream", () => {
  it("#20 tells of its life from created to null", async () => {
    const qmp = await streamable();
    await qmp.execute("block-stream", { device: "top", "job-id": "s0" });
    await qmp.clock.advance(10_000);
    await qmp.execute("query-block-jobs");
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"block-stream","arguments":{"device":"top","job-id":"s0"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"waiting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"pending"}}
      <- {"event":"BLOCK_JOB_COMPLETED","data":{"type":"stream","device":"s0","len":4194304,"offset":4194304,"speed":0}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"concluded"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"null"}}
      -> {"execute":"query-block-jobs"}
      <- {"return":[]}
      "
    `);
  });

  it("#12 obeys pause, speed, resume and cancel", async () => {
    const qmp = await streamable();
    await qmp.execute("block-stream", {
      device: "top",
      "job-id": "s0",
      speed: CHUNK,
      "auto-dismiss": false,
    });
    await qmp.clock.advance(1500);
    await qmp.execute("job-pause", { id: "s0" });
    await qmp.execute("job-pause", { id: "s0" });
    await qmp.execute("query-block-jobs");
    await qmp.execute("block-job-set-speed", { device: "s0", speed: -1 });
    await qmp.execute("block-job-set-speed", { device: "s0", speed: 2 * CHUNK });
    await qmp.execute("job-complete", { id: "s0" });
    await qmp.execute("job-finalize", { id: "s0" });
    await qmp.execute("job-dismiss", { id: "s0" });
    await qmp.execute("job-resume", { id: "s0" });
    await qmp.execute("job-resume", { id: "s0" });
    await qmp.execute("job-cancel", { id: "s0" });
    await qmp.execute("query-jobs");
    await qmp.execute("job-dismiss", { id: "s0" });
    await qmp.execute("query-jobs");
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"block-stream","arguments":{"device":"top","job-id":"s0","speed":524288,"auto-dismiss":false}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"running"}}
      <- {"return":{}}
      -> {"execute":"job-pause","arguments":{"id":"s0"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"paused"}}
      <- {"return":{}}
      -> {"execute":"job-pause","arguments":{"id":"s0"}}
      <- {"error":{"class":"GenericError","desc":"'pause' does not apply to job 's0' as it is paused already"}}
      -> {"execute":"query-block-jobs"}
      <- {"return":[{"type":"stream","device":"s0","len":4194304,"offset":1048576,"busy":false,"paused":true,"speed":524288,"io-status":"ok","ready":false,"status":"paused","auto-finalize":true,"auto-dismiss":false}]}
      -> {"execute":"block-job-set-speed","arguments":{"device":"s0","speed":-1}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'speed' expects 0 or more; got -1"}}
      -> {"execute":"block-job-set-speed","arguments":{"device":"s0","speed":1048576}}
      <- {"return":{}}
      -> {"execute":"job-complete","arguments":{"id":"s0"}}
      <- {"error":{"class":"GenericError","desc":"'complete' does not apply to job 's0' while it is paused"}}
      -> {"execute":"job-finalize","arguments":{"id":"s0"}}
      <- {"error":{"class":"GenericError","desc":"'finalize' does not apply to job 's0' while it is paused"}}
      -> {"execute":"job-dismiss","arguments":{"id":"s0"}}
      <- {"error":{"class":"GenericError","desc":"'dismiss' does not apply to job 's0' while it is paused"}}
      -> {"execute":"job-resume","arguments":{"id":"s0"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"running"}}
      <- {"return":{}}
      -> {"execute":"job-resume","arguments":{"id":"s0"}}
      <- {"error":{"class":"GenericError","desc":"'resume' does not apply to job 's0' as it is not paused; it is running"}}
      -> {"execute":"job-cancel","arguments":{"id":"s0"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"aborting"}}
      <- {"event":"BLOCK_JOB_CANCELLED","data":{"type":"stream","device":"s0","len":4194304,"offset":1572864,"speed":1048576}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"concluded"}}
      -> {"execute":"query-jobs"}
      <- {"return":[{"id":"s0","type":"stream","status":"concluded","current-progress":1572864,"total-progress":4194304,"error":"Operation canceled"}]}
      -> {"execute":"job-dismiss","arguments":{"id":"s0"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"null"}}
      <- {"return":{}}
      -> {"execute":"query-jobs"}
      <- {"return":[]}
      "
    `);
  });

  it("#20 waits for the user where it may not finalize or dismiss itself", async () => {
    const qmp = await streamable();
    await qmp.execute("block-stream", {
      device: "top",
      "job-id": "s0",
      "auto-finalize": false,
      "auto-dismiss": false,
    });
    await qmp.clock.advance(10_000);
    await qmp.execute("job-finalize", { id: "s0" });
    await qmp.execute("job-dismiss", { id: "s0" });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"block-stream","arguments":{"device":"top","job-id":"s0","auto-finalize":false,"auto-dismiss":false}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"waiting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"pending"}}
      <- {"event":"BLOCK_JOB_PENDING","data":{"type":"stream","id":"s0"}}
      -> {"execute":"job-finalize","arguments":{"id":"s0"}}
      <- {"event":"BLOCK_JOB_COMPLETED","data":{"type":"stream","device":"s0","len":4194304,"offset":4194304,"speed":0}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"concluded"}}
      <- {"return":{}}
      -> {"execute":"job-dismiss","arguments":{"id":"s0"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"null"}}
      <- {"return":{}}
      "
    `);
  });

  it("#3 takes an export's id as device, and as its own id", async () => {
    const qmp = await streamable();
    const options = { type: "message-port", id: "vda", "node-name": "top", writable: true };
    await qmp.execute("block-export-add", options);
    await qmp.execute("block-stream", { device: "vda", speed: CHUNK });
    const { return: jobs } = await qmp.execute("query-jobs");
    expect(jobs).toMatchObject([{ id: "vda", type: "stream", status: "running" }]);
    // The job's own filter is not for users to see.
    const { return: blocks } = await qmp.execute("query-block");
    expect(blocks).toMatchObject([{ device: "vda", inserted: { "node-name": "top" } }]);
  });

  it("#3 needs an id of its own if its device has no name, or if that is taken", async () => {
    const qmp = await streamable();
    const options = { type: "message-port", id: "vda", "node-name": "top", writable: true };
    await qmp.execute("block-export-add", options);
    await qmp.execute("blockdev-create", {
      "job-id": "vda",
      options: { driver: "memory", name: "m", size: 0 },
    });
    qmp.transcript();
    await qmp.execute("block-stream", { device: "top" });
    await qmp.execute("block-stream", { device: "vda" });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"block-stream","arguments":{"device":"top"}}
      <- {"error":{"class":"GenericError","desc":"Invalid job ID '': expected a letter, then letters, digits, '-', '.' and '_'"}}
      -> {"execute":"block-stream","arguments":{"device":"vda"}}
      <- {"error":{"class":"GenericError","desc":"Job ID 'vda' is already in use"}}
      "
    `);
  });

  it("#4 an id is taken until its job is dismissed", async () => {
    const qmp = await streamable();
    const args = { device: "top", "job-id": "s0" };
    await qmp.execute("block-stream", { ...args, "auto-dismiss": false });
    await qmp.clock.advance(10_000);
    expect(await qmp.execute("block-stream", args)).toMatchObject({
      error: { class: "GenericError", desc: "Job ID 's0' is already in use" },
    });
    await qmp.execute("job-dismiss", { id: "s0" });
    expect(await qmp.execute("block-stream", args)).toMatchObject({ return: {} });
  });

  it("#23 with a negative speed is created, gone and refused", async () => {
    const qmp = await streamable();
    await qmp.execute("block-stream", { device: "top", "job-id": "s0", speed: -1 });
    await qmp.execute("query-jobs");
    const { return: nodes } = await qmp.execute("query-named-block-nodes");
    expect((nodes as { drv: string }[]).map(({ drv }) => drv)).not.toContain("copy-on-read");
    expect(qmp.transcript().split("\n").slice(0, 6).join("\n")).toMatchInlineSnapshot(`
      "
      -> {"execute":"block-stream","arguments":{"device":"top","job-id":"s0","speed":-1}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s0","status":"null"}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'speed' expects 0 or more; got -1"}}
      -> {"execute":"query-jobs"}"
    `);
  });

  it("leaves no trace when it is refused", async () => {
    const qmp = await streamable();
    await qmp.execute("block-stream", { device: "top" });
    await qmp.execute("block-stream", { device: "top", "job-id": "s0", base: "a", bottom: "b" });
    await qmp.execute("block-stream", { device: "top", "job-id": "s0", "base-node": "nope" });
    await qmp.execute("query-jobs");
    const { return: nodes } = await qmp.execute("query-named-block-nodes");
    expect((nodes as { drv: string }[]).map(({ drv }) => drv)).not.toContain("copy-on-read");
    expect(qmp.received.some((message) => "event" in message)).toBe(false);
  });
});

describe("queries", () => {
  it("#125 list the newest job first", async () => {
    const qmp = await (await conversation()).negotiated();
    for (const id of ["a", "b", "c"]) {
      const options = { driver: "memory", name: id, size: 0 };
      await qmp.execute("blockdev-create", { "job-id": id, options });
    }
    const { return: jobs } = await qmp.execute("query-jobs");
    expect((jobs as { id: string }[]).map(({ id }) => id)).toEqual(["c", "b", "a"]);
  });
});

/** [base] <── [top]: 4 MiB of data in base. */
async function streamable(): Promise<Conversation> {
  const qmp = await (await conversation()).negotiated();
  const image = { driver: "tiny", size: 8 * CHUNK, "cluster-size": 65536 };
  await qmp.execute("blockdev-add", {
    ...image,
    "node-name": "base",
    file: { driver: "memory", "node-name": "base-file", size: 0 },
  });
  const { engine } = qmp;
  const device = { type: "message-port", id: "w", nodeName: "base", writable: true };
  const writer = await engine.exports.add(device);
  const filled = writer.backend.write(new Uint8Array(8 * CHUNK).fill(0xb5), 0);
  await qmp.clock.runUntil(filled);
  await qmp.clock.runUntil(engine.exports.remove("w", true));
  const file = { driver: "memory", "node-name": "top-file", size: 0 };
  await qmp.execute("blockdev-add", { ...image, "node-name": "top", file, backing: "base" });
  qmp.transcript();
  qmp.received.length = 0;
  return qmp;
}
