/** blockdev-create as a client types it. */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { qcow2Driver } from "../../src/drivers/format/qcow2/index.ts";
import { fileDriver } from "../../src/drivers/protocol/file.ts";
import { faultyDriver } from "../blockjob/faulty.ts";
import { testFolder } from "../drivers/format/rig.ts";
import { conversation } from "./conversation.ts";

const folder = testFolder();

describe("blockdev-create", () => {
  it("#120 stays concluded until job-dismiss, and knows no other verb", async () => {
    const qmp = await (await conversation([qcow2Driver()] as never)).negotiated();
    const create = (file: string) => {
      const options = { driver: "qcow2", file, size: 65536 };
      return qmp.execute("blockdev-create", { "job-id": "j", options });
    };
    await qmp.execute("blockdev-add", { driver: "memory", "node-name": "f", size: 0 });
    qmp.transcript();
    await create("f");
    await create("f");
    await qmp.execute("job-finalize", { id: "j" });
    await qmp.execute("block-job-dismiss", { id: "j" });
    await qmp.execute("job-dismiss", { id: "j" });
    await create("nope");
    await qmp.execute("query-jobs");
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"blockdev-create","arguments":{"job-id":"j","options":{"driver":"qcow2","file":"f","size":65536}}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"waiting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"pending"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"concluded"}}
      -> {"execute":"blockdev-create","arguments":{"job-id":"j","options":{"driver":"qcow2","file":"f","size":65536}}}
      <- {"error":{"class":"GenericError","desc":"Job ID 'j' is already in use"}}
      -> {"execute":"job-finalize","arguments":{"id":"j"}}
      <- {"error":{"class":"GenericError","desc":"'finalize' does not apply to job 'j' while it is concluded"}}
      -> {"execute":"block-job-dismiss","arguments":{"id":"j"}}
      <- {"error":{"class":"DeviceNotActive","desc":"Block job 'j' not found"}}
      -> {"execute":"job-dismiss","arguments":{"id":"j"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"null"}}
      <- {"return":{}}
      -> {"execute":"blockdev-create","arguments":{"job-id":"j","options":{"driver":"qcow2","file":"nope","size":65536}}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"aborting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"concluded"}}
      -> {"execute":"query-jobs"}
      <- {"return":[{"id":"j","type":"create","status":"concluded","current-progress":1,"total-progress":1,"error":"Cannot find node 'nope'"}]}
      "
    `);
  });

  it("does not empty the file of a disk in use, where the store does not know by itself", async () => {
    const qmp = await (await conversation([fileDriver()] as never)).negotiated();
    const filename = join(folder, "disk.raw");
    writeFileSync(filename, "precious");
    await qmp.execute("blockdev-add", { driver: "file", "node-name": "disk", filename });
    const options = { driver: "file", filename, size: 0 };
    await qmp.execute("blockdev-create", { "job-id": "j", options });
    await vi.waitFor(() => expect(qmp.engine.jobs.get("j").status).toBe("concluded"));
    expect(qmp.engine.jobs.get("j").error).toMatchObject({ errno: "EBUSY" });
    expect(readFileSync(filename, "utf8")).toBe("precious");
  });

  it("#121 cancelled while it runs ends with ECANCELED, and the file is there", async () => {
    const faulty = faultyDriver("faulty");
    const qmp = await (await conversation([qcow2Driver(), faulty] as never)).negotiated();
    await qmp.execute("blockdev-add", { driver: "faulty", "node-name": "f", size: 0 });
    let cancelled = false;
    faulty.hear = () => {
      if (!cancelled) qmp.engine.jobs.get("j").cancel(true);
      cancelled = true;
    };
    qmp.transcript();
    const options = { driver: "qcow2", file: "f", size: 65536 };
    await qmp.execute("blockdev-create", { "job-id": "j", options });
    await qmp.execute("query-jobs");
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"blockdev-create","arguments":{"job-id":"j","options":{"driver":"qcow2","file":"f","size":65536}}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"aborting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"concluded"}}
      -> {"execute":"query-jobs"}
      <- {"return":[{"id":"j","type":"create","status":"concluded","current-progress":1,"total-progress":1,"error":"Operation canceled"}]}
      "
    `);
    await qmp.execute("job-dismiss", { id: "j" });
    const reply = await qmp.execute("blockdev-add", {
      driver: "qcow2",
      "node-name": "n",
      file: "f",
    });
    expect(reply).toMatchObject({ return: {} });
  });
});
