/** blockdev-backup on the wire. */

import { expect, it } from "vitest";
import { KiB } from "../../src/base/bytes.ts";
import { type Conversation, conversation } from "./conversation.ts";

async function twoDisks(): Promise<Conversation> {
  const c = await (await conversation()).negotiated();
  for (const name of ["source", "target"]) {
    const file = { driver: "memory", size: 0 };
    const node = { driver: "tiny", "node-name": name, size: 256 * KiB, "cluster-size": 64 * KiB };
    await c.execute("blockdev-add", { ...node, file });
  }
  c.transcript();
  return c;
}

const BACKUP = { "job-id": "b0", device: "source", target: "target", sync: "full" };

it("#104 #20 tells of a backup from its creation to its end", async () => {
  const c = await twoDisks();
  await c.execute("blockdev-backup", { ...BACKUP, "auto-finalize": false });
  await c.execute("query-block-jobs");
  await c.execute("job-finalize", { id: "b0" });
  expect(c.transcript()).toMatchInlineSnapshot(`
    "
    -> {"execute":"blockdev-backup","arguments":{"job-id":"b0","device":"source","target":"target","sync":"full","auto-finalize":false}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"created"}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"running"}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"paused"}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"running"}}
    <- {"return":{}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"waiting"}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"pending"}}
    <- {"event":"BLOCK_JOB_PENDING","data":{"type":"backup","id":"b0"}}
    -> {"execute":"query-block-jobs"}
    <- {"return":[{"type":"backup","device":"b0","len":262144,"offset":262144,"busy":false,"paused":false,"speed":0,"io-status":"ok","ready":false,"status":"pending","auto-finalize":false,"auto-dismiss":true}]}
    -> {"execute":"job-finalize","arguments":{"id":"b0"}}
    <- {"event":"BLOCK_JOB_COMPLETED","data":{"type":"backup","device":"b0","len":262144,"offset":262144,"speed":0}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"concluded"}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"null"}}
    <- {"return":{}}
    "
  `);
});

it("#105 refuses what cannot be, and takes all that QEMU takes", async () => {
  const c = await twoDisks();
  await c.execute("blockdev-backup", { ...BACKUP, target: "source" });
  await c.execute("blockdev-backup", { ...BACKUP, device: "nope" });
  await c.execute("blockdev-backup", { ...BACKUP, sync: "everything" });
  await c.execute("blockdev-backup", { ...BACKUP, bitmap: "b" });
  await c.execute("blockdev-backup", { ...BACKUP, "x-perf": { "max-workers": 0 } });
  await c.execute("blockdev-backup", {
    ...BACKUP,
    speed: 0,
    compress: false,
    "on-source-error": "report",
    "on-target-error": "enospc",
    "on-cbw-error": "break-snapshot",
    "discard-source": false,
    "auto-finalize": true,
    "auto-dismiss": true,
    "filter-node-name": "filter",
    "x-perf": {
      "use-copy-range": true,
      "max-workers": 4,
      "max-chunk": 65536,
      "min-cluster-size": 65536,
    },
  });
  expect(c.transcript()).toMatchInlineSnapshot(`
    "
    -> {"execute":"blockdev-backup","arguments":{"job-id":"b0","device":"source","target":"source","sync":"full"}}
    <- {"error":{"class":"GenericError","desc":"Node 'source' cannot be the target of its own backup"}}
    -> {"execute":"blockdev-backup","arguments":{"job-id":"b0","device":"nope","target":"target","sync":"full"}}
    <- {"error":{"class":"GenericError","desc":"Cannot find device or node 'nope'"}}
    -> {"execute":"blockdev-backup","arguments":{"job-id":"b0","device":"source","target":"target","sync":"everything"}}
    <- {"error":{"class":"GenericError","desc":"Parameter 'sync' does not accept value 'everything'; it takes 'full', 'top', 'none', 'bitmap', 'incremental'"}}
    -> {"execute":"blockdev-backup","arguments":{"job-id":"b0","device":"source","target":"target","sync":"full","bitmap":"b"}}
    <- {"error":{"class":"GenericError","desc":"Node 'source' has no bitmap 'b'"}}
    -> {"execute":"blockdev-backup","arguments":{"job-id":"b0","device":"source","target":"target","sync":"full","x-perf":{"max-workers":0}}}
    <- {"error":{"class":"GenericError","desc":"'max-workers' expects 1 or more; got 0"}}
    -> {"execute":"blockdev-backup","arguments":{"job-id":"b0","device":"source","target":"target","sync":"full","speed":0,"compress":false,"on-source-error":"report","on-target-error":"enospc","on-cbw-error":"break-snapshot","discard-source":false,"auto-finalize":true,"auto-dismiss":true,"filter-node-name":"filter","x-perf":{"use-copy-range":true,"max-workers":4,"max-chunk":65536,"min-cluster-size":65536}}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"created"}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"running"}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"paused"}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"running"}}
    <- {"return":{}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"waiting"}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"pending"}}
    <- {"event":"BLOCK_JOB_COMPLETED","data":{"type":"backup","device":"b0","len":262144,"offset":262144,"speed":0}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"concluded"}}
    <- {"event":"JOB_STATUS_CHANGE","data":{"id":"b0","status":"null"}}
    "
  `);
});
