/**
 * block-stream, seen from outside: a chain and a list of verbs in, events and a chain out. Layers are
 * of the tiny test format; the same on qcow2 in a browser is in test/e2e/.
 */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { seededRandom } from "../../src/base/random.ts";
import { type StreamOptions, startStream } from "../../src/blockjob/stream.ts";
import { verbs } from "../../src/job/verbs.ts";
import { chain, hash } from "./rig.ts";

describe("block-stream", () => {
  it("#64 #52 pulls the whole chain and leaves one image that reads the same", async () => {
    const t = await chain(["base", "mid", "top"], 3 * MiB);
    const before = await t.content();
    await t.stream({ device: "vda", jobId: "s0" });
    expect(t.story()).toBe("created running waiting pending COMPLETED concluded null");
    expect(t.layers()).toEqual(["top"]);
    expect(hash(await t.content())).toBe(hash(before));
  });

  it("#64 with base-node keeps what is below it", async () => {
    const t = await chain(["base", "mid", "top"], 3 * MiB);
    const before = await t.content();
    await t.stream({ device: "vda", jobId: "s0", baseNode: "base" });
    expect(t.layers()).toEqual(["top", "base"]);
    expect(hash(await t.content())).toBe(hash(before));
    await t.write("base", 0xff); // Only what base showed before shows it now.
    expect(hash(await t.content())).not.toBe(hash(before));
  });

  it("#64 with bottom names the last layer to pull", async () => {
    const t = await chain(["base", "mid", "low", "top"], 2 * MiB);
    await t.stream({ device: "vda", jobId: "s0", bottom: "low" });
    expect(t.layers()).toEqual(["top", "mid", "base"]);
  });

  it("#64 #52 does nothing, and says so, where there is nothing to pull", async () => {
    const t = await chain(["base", "top"], MiB);
    const job = await t.stream({ device: "vda", jobId: "s0", baseNode: "base" });
    expect(t.layers()).toEqual(["top", "base"]);
    expect([job.progress.current, job.progress.total]).toEqual([0, 0]);
    expect(t.story()).toBe("created running waiting pending COMPLETED concluded null");
  });

  it("#64 writes another name into the header also where there is nothing to pull", async () => {
    const t = await chain(["base", "top"], MiB);
    await t.stream({ device: "vda", jobId: "s0", baseNode: "base", backingFile: "other" });
    expect(t.layers()).toEqual(["top", "base"]);
    expect(t.graph.get("top").state.info?.()["backing-filename"]).toBe("other");
  });

  it("#69 refuses what does not fit, and leaves no job and no filter behind", async () => {
    const t = await chain(["base", "mid", "top"], MiB);
    const wrong: [Partial<StreamOptions>, string][] = [
      [{ baseNode: "nope" }, "Cannot find node 'nope'"],
      [{ baseNode: "top" }, "not in the backing chain"],
      [{ base: "nope" }, "not in the backing chain"],
      [{ bottom: "top" }, "not in the backing chain"],
      [{ baseNode: "base", bottom: "mid" }, "exclude each other"],
      [{ backingFile: "x" }, "needs a base"],
      [{ jobId: "0id" }, "Invalid job ID"],
      [{ device: "nope" }, "Cannot find device or node"],
      [{ speed: -1 }, "expects 0 or more"],
    ];
    for (const [options, text] of wrong) {
      const given = { device: "vda", jobId: "s0", ...options };
      await expect(startStream(t.services, given), JSON.stringify(options)).rejects.toThrow(text);
      expect(t.services.jobs.query()).toEqual([]);
      expect(t.graph.nodes.filter((node) => node.implicit)).toEqual([]);
    }
    expect(t.story()).toBe("created null"); // The negative speed: QEMU's trace.
  });

  it("#66 keeps other jobs away from its layers, but not from its base", async () => {
    const t = await chain(["base", "mid", "top"], 2 * MiB);
    const job = await startStream(t.services, {
      device: "vda",
      jobId: "s0",
      baseNode: "base",
      speed: KiB,
    });
    for (const device of ["vda", "top", "mid"]) {
      const second = startStream(t.services, { device, jobId: "s1" });
      await expect(second, device).rejects.toMatchObject({ errno: "EBUSY" });
    }
    for (const node of ["mid", "top"]) {
      await expect(t.graph.remove(node)).rejects.toThrow(
        `'${node}' is busy: block device is in use`,
      );
    }
    t.graph.get("base").checkOperation("stream");
    await verbs.cancel(job, true);
    await t.clock.runUntil(job.finished);
    expect(t.layers()).toEqual(["top", "mid", "base"]);
  });

  it("#48 keeps to its speed: 512 KiB every half second at 1 MiB/s", async () => {
    const t = await chain(["base", "top"], 4 * MiB);
    const job = await startStream(t.services, { device: "vda", jobId: "s0", speed: MiB });
    const seen: number[] = [];
    for (let i = 0; i < 7; i++) {
      await t.clock.advance(i === 0 ? 1 : 500);
      seen.push(job.progress.current / KiB);
    }
    expect(seen).toEqual([512, 1024, 1536, 2048, 2560, 3072, 3584]);
    job.setSpeed(0);
    await t.clock.runUntil(job.finished);
    expect(t.layers()).toEqual(["top"]);
  });

  it("#70 cancelled, keeps what was copied; started again, passes it without a wait", async () => {
    const t = await chain(["base", "top"], 8 * MiB);
    const before = await t.content();
    const first = await startStream(t.services, { device: "vda", jobId: "s0", speed: MiB });
    await t.clock.advance(2600);
    await verbs.cancel(first, true);
    await t.clock.runUntil(first.finished);
    expect(t.story()).toBe("created running aborting CANCELLED concluded null");
    expect(t.layers()).toEqual(["top", "base"]);
    const done = first.progress.current;
    expect(done).toBeGreaterThan(2 * MiB);

    const second = await startStream(t.services, { device: "vda", jobId: "s0", speed: MiB });
    await t.clock.advance(1);
    expect(second.progress.current).toBeGreaterThanOrEqual(done);
    await t.clock.runUntil(second.finished);
    expect(hash(await t.content())).toBe(hash(before));
  });

  it("#13 pauses with nothing in flight, and goes on from there", async () => {
    const t = await chain(["base", "top"], 4 * MiB);
    const job = await startStream(t.services, { device: "vda", jobId: "s0", speed: MiB });
    await t.clock.advance(600);
    await verbs.pause(job);
    await t.clock.advance(1);
    const offset = job.progress.current;
    await t.clock.advance(10_000);
    expect([job.status, job.progress.current]).toEqual(["paused", offset]);
    await verbs.resume(job);
    await t.clock.runUntil(job.finished);
    expect(t.story()).toMatch(/^created running paused running waiting pending COMPLETED/);
  });

  it("#56 on an error: report fails the job there, and the chain stays", async () => {
    const t = await chain(["base", "top"], 2 * MiB);
    t.faulty.fault = { op: "read", errno: "EIO", offset: MiB };
    const job = await t.stream({ device: "vda", jobId: "s0", onError: "report" });
    expect(job.error).toMatchObject({ errno: "EIO", message: "Injected read error" });
    expect(t.story()).toMatch(/ERROR\(read,report\) aborting COMPLETED\(Injected read error\) con/);
    expect(t.layers()).toEqual(["top", "base"]);
  });

  it("#56 on an error: ignore goes on, fails at the end, and the chain stays", async () => {
    const t = await chain(["base", "top"], 2 * MiB);
    t.faulty.fault = { op: "read", errno: "EIO", offset: MiB };
    const job = await t.stream({ device: "vda", jobId: "s0", onError: "ignore" });
    expect(job.error?.errno).toBe("EIO");
    expect(job.progress.current).toBe(2 * MiB);
    expect(t.story()).toMatch(/ERROR\(read,ignore\) aborting COMPLETED/);
    expect(t.layers()).toEqual(["top", "base"]);
  });

  it("#56 on an error: stop pauses once, and resume tries the same bytes again", async () => {
    const t = await chain(["base", "top"], 4 * MiB);
    const before = await t.content();
    t.faulty.fault = { op: "read", errno: "EIO" };
    const job = await startStream(t.services, { device: "vda", jobId: "s0", onError: "stop" });
    await t.clock.advance(1000);
    expect([job.status, job.ioStatus]).toEqual(["paused", "failed"]);
    expect(t.story()).toBe("created running ERROR(read,stop) paused");
    await verbs.resume(job);
    await t.clock.advance(1000);
    expect(job.status).toBe("paused"); // Still broken.
    t.faulty.fault = null;
    await verbs.resume(job);
    expect(job.ioStatus).toBe("ok");
    await t.clock.runUntil(job.finished);
    expect(job.error).toBe(null);
    expect(job.progress.current).toBe(4 * MiB);
    expect(t.layers()).toEqual(["top"]);
    expect(hash(await t.content())).toBe(hash(before));
  });

  it("#57 on a full store: enospc pauses, and goes on when there is room", async () => {
    const t = await chain(["base", "top"], 2 * MiB);
    t.topStore.fault = { op: "write", errno: "ENOSPC" };
    const job = await startStream(t.services, { device: "vda", jobId: "s0", onError: "enospc" });
    await t.clock.advance(1000);
    expect([job.status, job.ioStatus]).toEqual(["paused", "nospace"]);
    expect(t.story()).toContain("ERROR(write,stop)");
    t.topStore.fault = null;
    await verbs.resume(job);
    await t.clock.runUntil(job.finished);
    expect(t.layers()).toEqual(["top"]);
  });

  it("fails, with the old chain, when the header cannot be written", async () => {
    const t = await chain(["base", "mid", "top"], MiB, { sealed: true });
    const before = await t.content();
    const job = await t.stream({ device: "vda", jobId: "s0", baseNode: "base" });
    expect(job.error?.errno).toBe("EIO");
    expect(t.layers()).toEqual(["top", "mid", "base"]);
    expect(hash(await t.content())).toBe(hash(before));
  });

  it("loses no guest write while it runs, in any interleaving (seeded)", async () => {
    for (let seed = 1; seed <= 8; seed++) {
      const random = seededRandom(seed);
      const t = await chain(["base", "mid", "top"], 2 * MiB);
      const model = await t.content();
      const job = await startStream(t.services, {
        device: "vda",
        jobId: "s0",
        speed: random.below(2) * 4 * MiB,
      });
      for (let i = 0; i < 80; i++) {
        const offset = random.below(2 * MiB - 5000);
        const data = new Uint8Array(1 + random.below(5000));
        random.fill(data);
        model.set(data, offset);
        const write = t.disk.write(data, offset);
        if (random.below(3) === 0) await t.clock.advance(random.below(40));
        await write;
      }
      await t.clock.runUntil(job.finished);
      expect(job.error, `seed ${seed}`).toBe(null);
      expect(t.layers()).toEqual(["top"]);
      const now = await t.content();
      expect(Buffer.compare(now, model), `seed ${seed}`).toBe(0);
    }
  });
});
