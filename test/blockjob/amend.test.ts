import { describe, expect, it } from "vitest";
import { MiB } from "../../src/base/bytes.ts";
import { startAmend } from "../../src/blockjob/amend.ts";
import { startCreate } from "../../src/blockjob/create.ts";
import { lab } from "./snapshot-rig.ts";

const FAILED = "created running aborting concluded";
const DONE = "created running waiting pending concluded";
const toV3 = { options: { driver: "qcow2", version: "v3" }, force: false };

async function oldDisk() {
  const it = await lab();
  const a = await it.disk("a", 1, { version: "v2" });
  const compat = () => {
    const specific = it.graph.get("a").state.info!()["format-specific"];
    return (specific!.data as { compat: string }).compat;
  };
  return { ...it, a, compat };
}

describe("x-blockdev-amend", () => {
  it("changes the image while guests wait, and stays concluded", async () => {
    const { services, story, ended, compat, a, fill, jobs } = await oldDisk();
    expect(compat()).toBe("0.10");
    const job = startAmend(services, { jobId: "j", nodeName: "a", ...toV3 });
    const write = a.write(new Uint8Array(MiB).fill(4), 0);
    await ended(job);
    await write;
    expect(story()).toBe(DONE);
    expect(job.query()).toEqual({
      id: "j",
      type: "amend",
      status: "concluded",
      "current-progress": 1,
      "total-progress": 1,
    });
    expect(compat()).toBe("1.1");
    expect(await fill(a)).toBe(4);
    job.dismiss();
    expect(jobs.all()).toEqual([]);
  });

  it("that the image refuses ends as failed", async () => {
    const { services, story, ended, a } = await oldDisk();
    await ended(startAmend(services, { jobId: "j1", nodeName: "a", ...toV3 }));
    await a.writeZeroes(0, MiB);
    story();
    const options = { driver: "qcow2", version: "v2" };
    const job = startAmend(services, { jobId: "j2", nodeName: "a", options, force: false });
    await ended(job);
    expect(story()).toBe(FAILED);
    expect(job.query()).toMatchObject({
      "current-progress": 0,
      "total-progress": 1,
      error: expect.stringMatching(/zero clusters/),
    });
    const encrypt = {
      driver: "qcow2",
      encrypt: { format: "luks", state: "active", "new-secret": "s" },
    };
    const other = startAmend(services, {
      jobId: "j3",
      nodeName: "a",
      options: encrypt,
      force: true,
    });
    await ended(other);
    expect(other.error).toMatchObject({ errno: "ENOTSUP" });
  });

  it("#121 is told as cancelled when it is cancelled, and has done its work", async () => {
    const { services, story, ended, disk, faulty, graph } = await lab();
    const bad = await disk("bad", 1, { version: "v2" }, { driver: "faulty", size: 0 });
    await bad.flush();
    const job = startAmend(services, { jobId: "j", nodeName: "bad", ...toV3 });
    faulty.hear = (op) => {
      if (op === "write" && !job.cancelled) job.cancel(true);
    };
    await ended(job);
    expect(story()).toBe(FAILED);
    expect(job.error).toMatchObject({ errno: "ECANCELED" });
    const { data } = graph.get("bad").state.info!()["format-specific"]!;
    expect(data).toMatchObject({ compat: "1.1" });
  });

  it.each<[string, object, string]>([
    ["a node that there is not", { nodeName: "nope" }, "ENOENT"],
    ["a driver that there is not", { options: { driver: "nope" } }, "EINVAL"],
    ["a driver that is not the node's", { options: { driver: "raw" } }, "EINVAL"],
    ["a driver that cannot", { nodeName: "a-file", options: { driver: "memory" } }, "ENOTSUP"],
    ["an option that there is not", { options: { driver: "qcow2", size: 5 } }, "EINVAL"],
    ["a value that there is not", { options: { driver: "qcow2", version: "v4" } }, "EINVAL"],
    ["a read-only node", { nodeName: "b" }, "EROFS"],
    ["an id that is taken", { jobId: "taken" }, "EEXIST"],
  ])("refuses %s before there is a job", async (_what, more, errno) => {
    const { services, graph, story, ended, jobs, disk } = await oldDisk();
    await graph.closeBackend(await disk("b", 1));
    const made = startCreate(services, {
      jobId: "taken",
      options: { driver: "memory", name: "m", size: 0 },
    });
    await ended(made);
    await graph.reopen(graph.get("b"), { readOnly: true });
    story();
    const request = { jobId: "j", nodeName: "a", ...toV3, ...more };
    expect(() => startAmend(services, request)).toThrow(expect.objectContaining({ errno }));
    expect(story()).toBe("");
    expect(jobs.all()).toEqual([made]);
  });
});
