/** Snapshots inside images and x-blockdev-amend, as a client types them. */

import { describe, expect, it } from "vitest";
import { qcow2Driver } from "../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../src/drivers/format/raw.ts";
import { type Conversation, conversation, type Wire } from "./conversation.ts";

const KiB = 1024;

/** Two qcow2 disks of version 2, "a" and "b", of 64 KiB each. */
async function disks(): Promise<Conversation> {
  const qmp = await (await conversation([rawDriver(), qcow2Driver()] as never)).negotiated();
  for (const name of ["a", "b"]) {
    const file = `${name}-file`;
    await qmp.execute("blockdev-add", { driver: "memory", "node-name": file, size: 0 });
    const options = { driver: "qcow2", file, size: 64 * KiB, version: "v2" };
    await qmp.execute("blockdev-create", { "job-id": "make", options });
    await qmp.execute("job-dismiss", { id: "make" });
    await qmp.execute("blockdev-add", { driver: "qcow2", "node-name": name, file });
  }
  qmp.transcript();
  return qmp;
}

async function snapshotsOf(qmp: Conversation, node: string): Promise<unknown> {
  const reply = await qmp.execute("query-named-block-nodes", { flat: true });
  const nodes = reply["return"] as { "node-name": string; image: { snapshots?: Wire[] } }[];
  qmp.transcript();
  return nodes.find((one) => one["node-name"] === node)!.image.snapshots;
}

const both = { vmstate: "a", devices: ["a", "b"] };

describe("snapshot-save, -load and -delete", () => {
  it("tell of their lives, and the image of its snapshots", async () => {
    const qmp = await disks();
    await qmp.execute("snapshot-save", { "job-id": "s", tag: "t", ...both });
    await qmp.execute("query-jobs");
    await qmp.execute("query-block-jobs");
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"snapshot-save","arguments":{"job-id":"s","tag":"t","vmstate":"a","devices":["a","b"]}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s","status":"waiting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s","status":"pending"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s","status":"concluded"}}
      -> {"execute":"query-jobs"}
      <- {"return":[{"id":"s","type":"snapshot-save","status":"concluded","current-progress":1,"total-progress":1}]}
      -> {"execute":"query-block-jobs"}
      <- {"return":[]}
      "
    `);
    expect(await snapshotsOf(qmp, "a")).toEqual([
      {
        id: "1",
        name: "t",
        "vm-state-size": 0,
        "date-sec": 1_577_836_800,
        "date-nsec": 0,
        "vm-clock-sec": 0,
        "vm-clock-nsec": 0,
      },
    ]);
    await qmp.execute("job-dismiss", { id: "s" });
    await qmp.execute("snapshot-load", { "job-id": "l", tag: "t", ...both });
    await qmp.execute("snapshot-delete", { "job-id": "d", tag: "t", devices: ["a", "b"] });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"job-dismiss","arguments":{"id":"s"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s","status":"null"}}
      <- {"return":{}}
      -> {"execute":"snapshot-load","arguments":{"job-id":"l","tag":"t","vmstate":"a","devices":["a","b"]}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"l","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"l","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"l","status":"waiting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"l","status":"pending"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"l","status":"concluded"}}
      -> {"execute":"snapshot-delete","arguments":{"job-id":"d","tag":"t","devices":["a","b"]}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"d","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"d","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"d","status":"waiting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"d","status":"pending"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"d","status":"concluded"}}
      "
    `);
    expect(await snapshotsOf(qmp, "a")).toBeUndefined();
  });

  it("fail as jobs, not as commands", async () => {
    const qmp = await disks();
    await qmp.execute("snapshot-load", { "job-id": "l", tag: "t", ...both });
    await qmp.execute("snapshot-save", { "job-id": "s", tag: "t", vmstate: "a", devices: ["b"] });
    await qmp.execute("snapshot-save", { "job-id": "n", tag: "t", vmstate: "x", devices: ["x"] });
    await qmp.execute("snapshot-save", { "job-id": "n", tag: "t", ...both });
    await qmp.execute("snapshot-save", {
      "job-id": "m",
      tag: "t",
      vmstate: "a-file",
      devices: ["a-file"],
    });
    await qmp.execute("query-jobs");
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"snapshot-load","arguments":{"job-id":"l","tag":"t","vmstate":"a","devices":["a","b"]}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"l","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"l","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"l","status":"aborting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"l","status":"concluded"}}
      -> {"execute":"snapshot-save","arguments":{"job-id":"s","tag":"t","vmstate":"a","devices":["b"]}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s","status":"aborting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"s","status":"concluded"}}
      -> {"execute":"snapshot-save","arguments":{"job-id":"n","tag":"t","vmstate":"x","devices":["x"]}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"n","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"n","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"n","status":"aborting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"n","status":"concluded"}}
      -> {"execute":"snapshot-save","arguments":{"job-id":"n","tag":"t","vmstate":"a","devices":["a","b"]}}
      <- {"error":{"class":"GenericError","desc":"Job ID 'n' is already in use"}}
      -> {"execute":"snapshot-save","arguments":{"job-id":"m","tag":"t","vmstate":"a-file","devices":["a-file"]}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"m","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"m","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"m","status":"aborting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"m","status":"concluded"}}
      -> {"execute":"query-jobs"}
      <- {"return":[{"id":"m","type":"snapshot-save","status":"concluded","current-progress":0,"total-progress":1,"error":"Node 'a-file' is of driver 'memory', which has no internal snapshots"},{"id":"n","type":"snapshot-save","status":"concluded","current-progress":0,"total-progress":1,"error":"Cannot find node 'x'"},{"id":"s","type":"snapshot-save","status":"concluded","current-progress":0,"total-progress":1,"error":"Parameter 'vmstate' names 'a', not one of 'devices'"},{"id":"l","type":"snapshot-load","status":"concluded","current-progress":0,"total-progress":1,"error":"Snapshot 't' does not exist on node 'a', 'b'"}]}
      "
    `);
  });
});

describe("blockdev-snapshot-internal-sync", () => {
  it("and its opposite work on one disk, and say what was deleted", async () => {
    const qmp = await disks();
    await qmp.execute("blockdev-snapshot-internal-sync", { device: "a", name: "one" });
    await qmp.execute("blockdev-snapshot-internal-sync", { device: "a", name: "one" });
    await qmp.execute("blockdev-snapshot-internal-sync", { device: "a", name: "" });
    await qmp.execute("blockdev-snapshot-internal-sync", { device: "nope", name: "x" });
    await qmp.execute("blockdev-snapshot-internal-sync", { device: "a-file", name: "x" });
    const remove = "blockdev-snapshot-delete-internal-sync";
    await qmp.execute(remove, { device: "a" });
    await qmp.execute(remove, { device: "a", id: "1", name: "other" });
    await qmp.execute(remove, { device: "a", id: "2" });
    await qmp.execute(remove, { device: "a", id: "1", name: "one" });
    await qmp.execute(remove, { device: "a", name: "one" });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"blockdev-snapshot-internal-sync","arguments":{"device":"a","name":"one"}}
      <- {"return":{}}
      -> {"execute":"blockdev-snapshot-internal-sync","arguments":{"device":"a","name":"one"}}
      <- {"error":{"class":"GenericError","desc":"Node 'a' has a snapshot 'one' already"}}
      -> {"execute":"blockdev-snapshot-internal-sync","arguments":{"device":"a","name":""}}
      <- {"error":{"class":"GenericError","desc":"A snapshot's name cannot be empty"}}
      -> {"execute":"blockdev-snapshot-internal-sync","arguments":{"device":"nope","name":"x"}}
      <- {"error":{"class":"GenericError","desc":"Cannot find device or node 'nope'"}}
      -> {"execute":"blockdev-snapshot-internal-sync","arguments":{"device":"a-file","name":"x"}}
      <- {"error":{"class":"GenericError","desc":"Node 'a-file' is of driver 'memory', which has no internal snapshots"}}
      -> {"execute":"blockdev-snapshot-delete-internal-sync","arguments":{"device":"a"}}
      <- {"error":{"class":"GenericError","desc":"One of the parameters 'id' and 'name' must be given"}}
      -> {"execute":"blockdev-snapshot-delete-internal-sync","arguments":{"device":"a","id":"1","name":"other"}}
      <- {"error":{"class":"GenericError","desc":"'a' has no snapshot with id '1' and name 'other'"}}
      -> {"execute":"blockdev-snapshot-delete-internal-sync","arguments":{"device":"a","id":"2"}}
      <- {"error":{"class":"GenericError","desc":"'a' has no snapshot with id '2'"}}
      -> {"execute":"blockdev-snapshot-delete-internal-sync","arguments":{"device":"a","id":"1","name":"one"}}
      <- {"return":{"id":"1","name":"one","vm-state-size":0,"date-sec":1577836800,"date-nsec":0,"vm-clock-sec":0,"vm-clock-nsec":0}}
      -> {"execute":"blockdev-snapshot-delete-internal-sync","arguments":{"device":"a","name":"one"}}
      <- {"error":{"class":"GenericError","desc":"'a' has no snapshot with name 'one'"}}
      "
    `);
  });
});

describe("x-blockdev-amend", () => {
  it("tells of its life, and refuses what it cannot do", async () => {
    const qmp = await disks();
    const amend = (id: string, node: string, options: object) =>
      qmp.execute("x-blockdev-amend", { "job-id": id, "node-name": node, options });
    await amend("j", "nope", { driver: "qcow2" });
    await amend("j", "a", { driver: "nope" });
    await amend("j", "a", { driver: "raw" });
    await amend("j", "a-file", { driver: "memory" });
    await amend("j", "a", { driver: "qcow2", version: "v4" });
    await amend("j", "a", { driver: "qcow2", version: "v3" });
    const encrypt = { format: "luks", state: "active", "new-secret": "s" };
    await amend("k", "a", { driver: "qcow2", encrypt });
    await qmp.execute("query-jobs");
    expect(qmp.transcript().replace(/there are: .*?"/, 'there are: …"')).toMatchInlineSnapshot(`
      "
      -> {"execute":"x-blockdev-amend","arguments":{"job-id":"j","node-name":"nope","options":{"driver":"qcow2"}}}
      <- {"error":{"class":"GenericError","desc":"Cannot find node 'nope'"}}
      -> {"execute":"x-blockdev-amend","arguments":{"job-id":"j","node-name":"a","options":{"driver":"nope"}}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'options.driver' does not accept value 'nope'; it takes 'memory', 'copy-on-read', 'tiny', 'raw', 'qcow2'"}}
      -> {"execute":"x-blockdev-amend","arguments":{"job-id":"j","node-name":"a","options":{"driver":"raw"}}}
      <- {"error":{"class":"GenericError","desc":"Node 'a' is of driver 'qcow2', not 'raw'"}}
      -> {"execute":"x-blockdev-amend","arguments":{"job-id":"j","node-name":"a-file","options":{"driver":"memory"}}}
      <- {"error":{"class":"GenericError","desc":"Driver 'memory' does not support x-blockdev-amend"}}
      -> {"execute":"x-blockdev-amend","arguments":{"job-id":"j","node-name":"a","options":{"driver":"qcow2","version":"v4"}}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'options.version' does not accept value 'v4'; it takes 'v2', 'v3'"}}
      -> {"execute":"x-blockdev-amend","arguments":{"job-id":"j","node-name":"a","options":{"driver":"qcow2","version":"v3"}}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"waiting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"pending"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"concluded"}}
      -> {"execute":"x-blockdev-amend","arguments":{"job-id":"k","node-name":"a","options":{"driver":"qcow2","encrypt":{"format":"luks","state":"active","new-secret":"s"}}}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"k","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"k","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"k","status":"aborting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"k","status":"concluded"}}
      -> {"execute":"query-jobs"}
      <- {"return":[{"id":"k","type":"amend","status":"concluded","current-progress":0,"total-progress":1,"error":"The image is not encrypted, and stays so"},{"id":"j","type":"amend","status":"concluded","current-progress":1,"total-progress":1}]}
      "
    `);
  });
});
