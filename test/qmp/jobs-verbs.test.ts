/**
 * Both families of job commands as a client types them: job-*, which sees every job and cancels by
 * force, and block-job-*, which sees block jobs alone and knows how to cancel softly.
 */

import { describe, expect, it } from "vitest";
import { BlockError } from "../../src/base/errors.ts";
import { BlockJob } from "../../src/blockjob/block-job.ts";
import type { JobDriver } from "../../src/job/driver.ts";
import { converging, steps } from "../job/world.ts";
import { type Conversation, conversation } from "./conversation.ts";

const MANUAL = { autoFinalize: false, autoDismiss: false };

describe("block-job-*", () => {
  it("#21 does not see what is not there, nor jobs of other types", async () => {
    const qmp = await (await conversation()).negotiated();
    const options = { driver: "memory", name: "m", size: 0 };
    await qmp.execute("blockdev-create", { "job-id": "j", options });
    qmp.transcript();
    for (const device of ["nope", "j"]) {
      for (const verb of ["cancel", "pause", "resume", "complete"]) {
        await qmp.execute(`block-job-${verb}`, { device });
      }
      for (const verb of ["finalize", "dismiss"]) {
        await qmp.execute(`block-job-${verb}`, { id: device });
      }
    }
    const replies = qmp.transcript().match(/<- .*/g)!;
    const notFound = (id: string) =>
      `<- {"error":{"class":"DeviceNotActive","desc":"Block job '${id}' not found"}}`;
    expect(replies).toEqual([
      ...Array.from({ length: 6 }, () => notFound("nope")),
      ...Array.from({ length: 6 }, () => notFound("j")),
    ]);
    await qmp.execute("job-dismiss", { id: "j" });
    expect(qmp.transcript()).toContain('"return":{}');
  });

  it("does not see internal jobs, whatever it calls them", async () => {
    const qmp = await (await conversation()).negotiated();
    start(qmp, null, converging());
    for (const device of ["", "null", "job"]) {
      expect(await qmp.execute("block-job-cancel", { device })).toMatchObject({
        error: { class: "DeviceNotActive" },
      });
    }
    expect(await qmp.execute("query-jobs")).toMatchObject({ return: [] });
    expect(await qmp.execute("query-block-jobs")).toMatchObject({ return: [] });
    expect(qmp.received.some((message) => "event" in message)).toBe(false);
  });

  it("takes the names that QEMU takes, and no others", async () => {
    const qmp = await (await conversation()).negotiated();
    for (const [command, args] of [
      ["block-job-cancel", { id: "j" }],
      ["block-job-pause", { id: "j" }],
      ["block-job-finalize", { device: "j" }],
      ["block-job-dismiss", {}],
      ["job-cancel", { id: "j", force: true }],
    ] as const) {
      expect(await qmp.execute(command, args)).toMatchObject({ error: { class: "GenericError" } });
    }
    expect(qmp.transcript()).not.toContain("not found");
  });
});

describe("pause and resume", () => {
  it("#14 both families mix, in running and in ready", async () => {
    const qmp = await (await conversation()).negotiated();
    const end = converging();
    const run: JobDriver["run"] = async (job) => {
      await steps(15)(job);
      await end.run!(job);
    };
    start(qmp, "j", { ...end, run });
    const pauses = [
      ["block-job-pause", { device: "j" }],
      ["job-pause", { id: "j" }],
    ] as const;
    const resumes = [
      ["job-resume", { id: "j" }],
      ["block-job-resume", { device: "j" }],
    ] as const;
    for (let round = 0; round < 2; round++) {
      for (const [pause, pauseArgs] of pauses) {
        for (const [resume, resumeArgs] of resumes) {
          await qmp.execute(pause, pauseArgs);
          await qmp.execute(resume, resumeArgs);
        }
      }
      await qmp.clock.advance(200);
    }
    const pair = (a: string, b: string) => Array(4).fill(`${a} ${b}`).join(" ");
    expect(statuses(qmp)).toBe(
      `created running ${pair("paused", "running")} ready ${pair("standby", "ready")}`,
    );
  });

  it("#12 #15 twice, without a pause, and too late, are errors, each of its own kind", async () => {
    const qmp = await (await conversation()).negotiated();
    start(qmp, "j", { run: steps(2) }, MANUAL);
    await qmp.execute("block-job-resume", { device: "j" });
    await qmp.execute("block-job-pause", { device: "j" });
    await qmp.execute("job-pause", { id: "j" });
    await qmp.execute("block-job-resume", { device: "j" });
    await qmp.clock.advance(100);
    await qmp.execute("job-resume", { id: "j" });
    await qmp.execute("block-job-pause", { device: "j" });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"running"}}
      -> {"execute":"block-job-resume","arguments":{"device":"j"}}
      <- {"error":{"class":"GenericError","desc":"'resume' does not apply to job 'j' as it is not paused; it is running"}}
      -> {"execute":"block-job-pause","arguments":{"device":"j"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"paused"}}
      <- {"return":{}}
      -> {"execute":"job-pause","arguments":{"id":"j"}}
      <- {"error":{"class":"GenericError","desc":"'pause' does not apply to job 'j' as it is paused already"}}
      -> {"execute":"block-job-resume","arguments":{"device":"j"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"waiting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"pending"}}
      <- {"event":"BLOCK_JOB_PENDING","data":{"type":"stream","id":"j"}}
      -> {"execute":"job-resume","arguments":{"id":"j"}}
      <- {"error":{"class":"GenericError","desc":"'resume' does not apply to job 'j' as it is not paused; it is pending"}}
      -> {"execute":"block-job-pause","arguments":{"device":"j"}}
      <- {"error":{"class":"GenericError","desc":"'pause' does not apply to job 'j' while it is pending"}}
      "
    `);
  });
});

describe("cancel", () => {
  it("#11 softly, while the user has paused it, is refused; by force it is not", async () => {
    const qmp = await (await conversation()).negotiated();
    start(qmp, "j", { run: steps(1, 1e9) }, MANUAL);
    await qmp.execute("job-pause", { id: "j" });
    await qmp.execute("block-job-cancel", { device: "j" });
    await qmp.execute("block-job-cancel", { device: "j", force: false });
    await qmp.execute("block-job-cancel", { device: "j", force: true });
    await qmp.execute("block-job-cancel", { device: "j", force: true });
    await qmp.execute("block-job-dismiss", { id: "j" });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"running"}}
      -> {"execute":"job-pause","arguments":{"id":"j"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"paused"}}
      <- {"return":{}}
      -> {"execute":"block-job-cancel","arguments":{"device":"j"}}
      <- {"error":{"class":"GenericError","desc":"'cancel' does not apply to job 'j' as it is paused: resume it, or use force"}}
      -> {"execute":"block-job-cancel","arguments":{"device":"j","force":false}}
      <- {"error":{"class":"GenericError","desc":"'cancel' does not apply to job 'j' as it is paused: resume it, or use force"}}
      -> {"execute":"block-job-cancel","arguments":{"device":"j","force":true}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"aborting"}}
      <- {"event":"BLOCK_JOB_CANCELLED","data":{"type":"stream","device":"j","len":1,"offset":0,"speed":0}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"concluded"}}
      -> {"execute":"block-job-cancel","arguments":{"device":"j","force":true}}
      <- {"error":{"class":"GenericError","desc":"'cancel' does not apply to job 'j' while it is concluded"}}
      -> {"execute":"block-job-dismiss","arguments":{"id":"j"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"null"}}
      <- {"return":{}}
      "
    `);
  });

  it("#10 job-cancel is always by force, also of a paused job", async () => {
    const qmp = await (await conversation()).negotiated();
    start(qmp, "j", { run: steps(1, 1e9) }, { autoDismiss: false });
    await qmp.execute("job-pause", { id: "j" });
    await qmp.execute("job-cancel", { id: "j" });
    expect(story(qmp)).toBe("created running paused running aborting CANCELLED concluded");
  });

  it("softly when ready comes to a good end, by force it does not", async () => {
    const qmp = await (await conversation()).negotiated();
    for (const force of [false, true]) {
      start(qmp, "j", converging());
      await qmp.clock.advance(20);
      await qmp.execute("block-job-cancel", { device: "j", force });
      await qmp.settle();
    }
    expect(story(qmp)).toBe(
      "created running ready READY waiting pending COMPLETED concluded null " +
        "created running ready READY aborting CANCELLED concluded null",
    );
  });

  it("#9 of a job that was not started tells of no end, and dismisses it", async () => {
    const qmp = await (await conversation()).negotiated();
    make(qmp, "j", { run: steps(1) }, MANUAL);
    await qmp.execute("block-job-cancel", { device: "j" });
    expect(story(qmp)).toBe("created aborting concluded null");
  });
});

describe("the end", () => {
  it("#20 comes by itself, or waits for finalize, or for dismiss, or for both", async () => {
    const qmp = await (await conversation()).negotiated();
    const told: string[] = [];
    for (const autoFinalize of [true, false]) {
      for (const autoDismiss of [true, false]) {
        start(qmp, "j", { run: steps(1) }, { autoFinalize, autoDismiss });
        await qmp.clock.advance(100);
        const waits = [story(qmp)];
        if (!autoFinalize) {
          await qmp.execute("block-job-finalize", { id: "j" });
          waits.push(story(qmp));
        }
        if (!autoDismiss) {
          await qmp.execute("block-job-dismiss", { id: "j" });
          waits.push(story(qmp));
        }
        told.push(waits.join(" | "));
        expect(await qmp.execute("query-jobs")).toMatchObject({ return: [] });
      }
    }
    expect(told).toEqual([
      "created running waiting pending COMPLETED concluded null",
      "created running waiting pending COMPLETED concluded | null",
      "created running waiting pending PENDING | COMPLETED concluded null",
      "created running waiting pending PENDING | COMPLETED concluded | null",
    ]);
  });

  it("#25 complete: not while running, when ready, twice, and it waits in standby", async () => {
    const qmp = await (await conversation()).negotiated();
    start(qmp, "j", converging());
    await qmp.execute("block-job-complete", { device: "j" });
    await qmp.clock.advance(20);
    await qmp.execute("block-job-pause", { device: "j" });
    await qmp.execute("block-job-complete", { device: "j" });
    await qmp.execute("job-complete", { id: "j" });
    await qmp.clock.advance(1000);
    await qmp.execute("job-resume", { id: "j" });
    await qmp.settle();
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"running"}}
      -> {"execute":"block-job-complete","arguments":{"device":"j"}}
      <- {"error":{"class":"GenericError","desc":"'complete' does not apply to job 'j' while it is running"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"ready"}}
      <- {"event":"BLOCK_JOB_READY","data":{"type":"stream","device":"j","len":0,"offset":0,"speed":0}}
      -> {"execute":"block-job-pause","arguments":{"device":"j"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"standby"}}
      <- {"return":{}}
      -> {"execute":"block-job-complete","arguments":{"device":"j"}}
      <- {"return":{}}
      -> {"execute":"job-complete","arguments":{"id":"j"}}
      <- {"return":{}}
      -> {"execute":"job-resume","arguments":{"id":"j"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"ready"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"waiting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"pending"}}
      <- {"event":"BLOCK_JOB_COMPLETED","data":{"type":"stream","device":"j","len":0,"offset":0,"speed":0}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"concluded"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"null"}}
      "
    `);
  });

  it("#21 dismiss is refused while the job is stopped by an error", async () => {
    const qmp = await (await conversation()).negotiated();
    const run: JobDriver["run"] = async (job) => {
      (job as BlockJob).onError(new BlockError("ENOSPC", "No space left on device"));
      await job.pausePoint();
    };
    start(qmp, "j", { run }, MANUAL);
    await qmp.settle();
    await qmp.execute("block-job-dismiss", { id: "j" });
    await qmp.execute("query-block-jobs");
    await qmp.execute("block-job-resume", { device: "j" });
    await qmp.settle();
    await qmp.execute("query-block-jobs");
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"running"}}
      <- {"event":"BLOCK_JOB_ERROR","data":{"device":"j","operation":"read","action":"stop","reason":"No space left on device","errno":"ENOSPC"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"paused"}}
      -> {"execute":"block-job-dismiss","arguments":{"id":"j"}}
      <- {"error":{"class":"GenericError","desc":"'dismiss' does not apply to job 'j' while it is paused"}}
      -> {"execute":"query-block-jobs"}
      <- {"return":[{"type":"stream","device":"j","len":0,"offset":0,"busy":false,"paused":true,"speed":0,"io-status":"nospace","ready":false,"status":"paused","auto-finalize":false,"auto-dismiss":false}]}
      -> {"execute":"block-job-resume","arguments":{"device":"j"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"waiting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"pending"}}
      <- {"event":"BLOCK_JOB_PENDING","data":{"type":"stream","id":"j"}}
      -> {"execute":"query-block-jobs"}
      <- {"return":[{"type":"stream","device":"j","len":0,"offset":0,"busy":false,"paused":false,"speed":0,"io-status":"ok","ready":false,"status":"pending","auto-finalize":false,"auto-dismiss":false}]}
      "
    `);
  });
});

describe("queries", () => {
  it("#125 tell the newest first; internal jobs are in none, create jobs in one", async () => {
    const qmp = await (await conversation()).negotiated();
    start(qmp, "a", converging());
    start(qmp, null, converging());
    const options = { driver: "memory", name: "m", size: 0 };
    await qmp.execute("blockdev-create", { "job-id": "b", options });
    start(qmp, "c", converging());
    const { return: all } = await qmp.execute("query-jobs");
    const { return: block } = await qmp.execute("query-block-jobs");
    expect((all as { id: string }[]).map(({ id }) => id)).toEqual(["c", "b", "a"]);
    expect((block as { device: string }[]).map(({ device }) => device)).toEqual(["c", "a"]);
  });
});

/** A block job of no nodes on the engine, not started. */
function make(
  { engine, clock }: Conversation,
  id: string | null,
  driver: Partial<JobDriver>,
  manner: object = {},
): BlockJob {
  const { graph, jobs } = engine;
  const services = { graph, jobs, clock, emit: engine.emit.bind(engine) };
  const full = { type: "stream", run: async () => {}, ...driver };
  return new BlockJob(services, { id, driver: full, onError: "stop", ...manner });
}

function start(...args: Parameters<typeof make>): void {
  make(...args).start();
}

/** The events since the last call: statuses in small letters, BLOCK_JOB_* in capitals. */
function story(qmp: Conversation): string {
  return qmp.received
    .splice(0)
    .filter((message) => "event" in message)
    .map(({ event, data }) => {
      const { status } = data as { status?: string };
      return status ?? String(event).replace("BLOCK_JOB_", "");
    })
    .join(" ");
}

function statuses(qmp: Conversation): string {
  return story(qmp)
    .split(" ")
    .filter((word) => word === word.toLowerCase())
    .join(" ");
}
