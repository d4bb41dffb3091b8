/** block-commit, as a client types it. What it does to real images is in test/scenarios/. */

import { describe, expect, it } from "vitest";
import { type Conversation, conversation } from "./conversation.ts";

const SIZE = 4 * 1024 * 1024;

describe("block-commit", () => {
  it("#75 #52 tells of its life, and the chain is shorter afterwards", async () => {
    const qmp = await committable();
    await qmp.execute("block-commit", {
      "job-id": "c0",
      device: "top",
      "top-node": "mid",
      "base-node": "base",
      "auto-finalize": false,
      "auto-dismiss": false,
    });
    await qmp.clock.advance(10_000);
    await qmp.execute("query-block-jobs");
    await qmp.execute("job-finalize", { id: "c0" });
    await qmp.execute("job-dismiss", { id: "c0" });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"block-commit","arguments":{"job-id":"c0","device":"top","top-node":"mid","base-node":"base","auto-finalize":false,"auto-dismiss":false}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"c0","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"c0","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"c0","status":"waiting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"c0","status":"pending"}}
      <- {"event":"BLOCK_JOB_PENDING","data":{"type":"commit","id":"c0"}}
      -> {"execute":"query-block-jobs"}
      <- {"return":[{"type":"commit","device":"c0","len":4194304,"offset":4194304,"busy":false,"paused":false,"speed":0,"io-status":"ok","ready":false,"status":"pending","auto-finalize":false,"auto-dismiss":false}]}
      -> {"execute":"job-finalize","arguments":{"id":"c0"}}
      <- {"event":"BLOCK_JOB_COMPLETED","data":{"type":"commit","device":"c0","len":4194304,"offset":4194304,"speed":0}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"c0","status":"concluded"}}
      <- {"return":{}}
      -> {"execute":"job-dismiss","arguments":{"id":"c0"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"c0","status":"null"}}
      <- {"return":{}}
      "
    `);
    const { return: nodes } = await qmp.execute("query-named-block-nodes");
    const top = (nodes as { "node-name": string }[]).find((node) => node["node-name"] === "top");
    expect(top).toMatchObject({
      backing_file_depth: 1,
      image: { "backing-image": { "virtual-size": SIZE }, "backing-filename": "base" },
    });
  });

  it("#79 says what is wrong, with a class of its own for the device", async () => {
    const qmp = await committable();
    const say = (args: object) => qmp.execute("block-commit", { "job-id": "c0", ...args });
    await say({ device: "nope", "top-node": "nope" });
    await say({ device: "top", "top-node": "nope" });
    await say({ device: "top", top: "nope" });
    await say({ device: "top", "top-node": "mid", "base-node": "top" });
    await say({ device: "top", "top-node": "mid", "base-node": "mid" });
    await say({ device: "top", "top-node": "base" });
    await say({ device: "top", "top-node": "mid", top: "mid" });
    await say({ device: "top", "base-node": "base", base: "base" });
    await say({ device: "mid" });
    await say({ device: "top", "backing-file": "x" });
    await qmp.execute("block-commit", { device: "top", "top-node": "mid" });
    await say({ device: "top", "top-node": "mid", speed: -1 });
    await say({ device: "top", "top-node": "mid", "on-error": "never" });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"block-commit","arguments":{"job-id":"c0","device":"nope","top-node":"nope"}}
      <- {"error":{"class":"DeviceNotFound","desc":"Cannot find device or node 'nope'"}}
      -> {"execute":"block-commit","arguments":{"job-id":"c0","device":"top","top-node":"nope"}}
      <- {"error":{"class":"GenericError","desc":"Cannot find node 'nope'"}}
      -> {"execute":"block-commit","arguments":{"job-id":"c0","device":"top","top":"nope"}}
      <- {"error":{"class":"GenericError","desc":"'nope' is not in the chain of node 'top'"}}
      -> {"execute":"block-commit","arguments":{"job-id":"c0","device":"top","top-node":"mid","base-node":"top"}}
      <- {"error":{"class":"GenericError","desc":"'top' is not in the chain of node 'mid'"}}
      -> {"execute":"block-commit","arguments":{"job-id":"c0","device":"top","top-node":"mid","base-node":"mid"}}
      <- {"error":{"class":"GenericError","desc":"Node 'mid' cannot be committed into itself"}}
      -> {"execute":"block-commit","arguments":{"job-id":"c0","device":"top","top-node":"base"}}
      <- {"error":{"class":"GenericError","desc":"Node 'base' has no backing file to be committed into"}}
      -> {"execute":"block-commit","arguments":{"job-id":"c0","device":"top","top-node":"mid","top":"mid"}}
      <- {"error":{"class":"GenericError","desc":"'top' and 'top-node' exclude each other"}}
      -> {"execute":"block-commit","arguments":{"job-id":"c0","device":"top","base-node":"base","base":"base"}}
      <- {"error":{"class":"GenericError","desc":"'base' and 'base-node' exclude each other"}}
      -> {"execute":"block-commit","arguments":{"job-id":"c0","device":"mid"}}
      <- {"error":{"class":"GenericError","desc":"Node 'mid' is below node 'top': a commit needs the root of the chain"}}
      -> {"execute":"block-commit","arguments":{"job-id":"c0","device":"top","backing-file":"x"}}
      <- {"error":{"class":"GenericError","desc":"'backing-file' is for overlays above the top node, but 'top' is the active layer"}}
      -> {"execute":"block-commit","arguments":{"device":"top","top-node":"mid"}}
      <- {"error":{"class":"GenericError","desc":"Invalid job ID '': expected a letter, then letters, digits, '-', '.' and '_'"}}
      -> {"execute":"block-commit","arguments":{"job-id":"c0","device":"top","top-node":"mid","speed":-1}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"c0","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"c0","status":"null"}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'speed' expects 0 or more; got -1"}}
      -> {"execute":"block-commit","arguments":{"job-id":"c0","device":"top","top-node":"mid","on-error":"never"}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'on-error' does not accept value 'never'; it takes 'report', 'ignore', 'enospc', 'stop', 'auto'"}}
      "
    `);
  });

  it("#84 commits a snapshot's overlay, and the next snapshot goes as well", async () => {
    const qmp = await committable();
    await qmp.execute("block-export-add", { type: "message-port", id: "vda", "node-name": "top" });
    for (const overlay of ["over1", "over2"]) {
      await qmp.execute("blockdev-add", {
        driver: "tiny",
        "node-name": overlay,
        file: { driver: "memory", size: 0 },
        size: SIZE,
        "cluster-size": 65536,
        backing: null,
      });
      const [device] = qmp.engine.graph.backends.filter(({ name }) => name === "vda");
      const reply = await qmp.execute("blockdev-snapshot", { node: device!.node.name, overlay });
      expect(reply).toEqual({ return: {} });
      await qmp.execute("block-commit", { "job-id": "c0", device: "vda", "base-node": "top" });
      await qmp.clock.advance(1000);
      const completed = await qmp.execute("job-complete", { id: "c0" });
      expect(completed).toEqual({ return: {} });
      await qmp.clock.advance(1000);
      expect((await qmp.execute("query-jobs"))["return"]).toEqual([]);
      expect(device!.node.name).toBe("top");
      await qmp.execute("blockdev-del", { "node-name": overlay });
    }
  });

  it("#51b has its speed set by block-job-set-speed, within limits", async () => {
    const qmp = await committable();
    await qmp.execute("block-commit", {
      "job-id": "c0",
      device: "top",
      "top-node": "mid",
      speed: 4096,
      "auto-finalize": false,
    });
    await qmp.execute("block-job-set-speed", { device: "c0", speed: -1 });
    await qmp.execute("block-job-set-speed", { device: "nope", speed: 1 });
    await qmp.execute("block-job-set-speed", { device: "c0", speed: 0 });
    await qmp.clock.advance(10_000);
    await qmp.execute("block-job-set-speed", { device: "c0", speed: 1 });
    const errors = qmp.received.flatMap(({ error }) => (error ? [error] : []));
    expect(errors).toMatchInlineSnapshot(`
      [
        {
          "class": "GenericError",
          "desc": "Parameter 'speed' expects 0 or more; got -1",
        },
        {
          "class": "DeviceNotActive",
          "desc": "Block job 'nope' not found",
        },
        {
          "class": "GenericError",
          "desc": "'set-speed' does not apply to job 'c0' while it is pending",
        },
      ]
    `);
  });
});

/** base, full of data, under mid, which has half of its own, under top. */
async function committable(): Promise<Conversation> {
  const qmp = await (await conversation()).negotiated();
  let backing: string | undefined;
  for (const [name, bytes] of [
    ["base", SIZE],
    ["mid", SIZE / 2],
    ["top", 0],
  ] as const) {
    await qmp.execute("blockdev-add", {
      driver: "tiny",
      "node-name": name,
      file: { driver: "memory", "node-name": `${name}-file`, size: 0 },
      size: SIZE,
      "cluster-size": 65536,
      ...(backing !== undefined && { backing }),
    });
    backing = name;
    if (bytes === 0) continue;
    const { exports } = qmp.engine;
    const writer = await exports.add({
      type: "message-port",
      id: "w",
      nodeName: name,
      writable: true,
    });
    await qmp.clock.runUntil(writer.backend.write(new Uint8Array(bytes).fill(0xb5), 0));
    await qmp.clock.runUntil(exports.remove("w", true));
  }
  qmp.transcript();
  qmp.received.length = 0;
  return qmp;
}
