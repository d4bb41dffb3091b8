/**
 * An intermediate block-commit, seen from outside: a chain and a list of verbs in, events and a chain
 * out. Layers are of the tiny test format; the same on qcow2, which the real qemu-img has made and
 * looks at again, is in test/scenarios/.
 */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import type { BlockNode } from "../../src/block/node.ts";
import type { BlockdevOptions } from "../../src/block/options.ts";
import { Perm } from "../../src/block/permissions.ts";
import { type CommitOptions, startCommit } from "../../src/blockjob/commit.ts";
import { startStream } from "../../src/blockjob/stream.ts";
import { verbs } from "../../src/job/verbs.ts";
import { nodeInfo } from "../../src/qmp/block-info.ts";
import { chain, hash } from "./rig.ts";

const NAMES = ["base", "low", "mid", "top"];
const MID_TO_BASE = { device: "vda", jobId: "c0", topNode: "mid", baseNode: "base" } as const;
const SUCCESS = "created running waiting pending COMPLETED concluded null";

/** Alone, without what is below. */
async function labelOf(node: BlockNode): Promise<string | undefined> {
  return node.state.info?.()["backing-filename"];
}

describe("an intermediate block-commit", () => {
  it("#75 merges mid into base: base has the patterns, the chain is shorter, the header names base", async () => {
    const t = await chain(NAMES, 3 * MiB);
    const [before, mid] = [await t.content(), await t.read("mid")];
    await t.commit(MID_TO_BASE);
    expect(t.story()).toBe(SUCCESS);
    expect(t.bugs).toEqual([]);
    expect(t.layers()).toEqual(["top", "base"]);
    expect(hash(await t.content())).toBe(hash(before));
    expect(hash(await t.read("base"))).toBe(hash(mid));
    expect(await labelOf(t.graph.get("top"))).toBe("base");
    expect(t.graph.nodes.filter((node) => node.driver.kind === "filter")).toEqual([]);
    // What was merged can be taken away, as nothing is left that uses it.
    for (const name of ["mid", "low"]) await t.graph.remove(name);
    expect(hash(await t.content())).toBe(hash(before));
  });

  it("#75 merges one layer of several, and leaves those below base alone", async () => {
    const t = await chain(NAMES, 2 * MiB);
    const [before, base] = [await t.content(), await t.read("base")];
    const job = await t.commit({ ...MID_TO_BASE, baseNode: "low", backingFile: "other name" });
    expect(job.error).toBe(null);
    expect(t.layers()).toEqual(["top", "low", "base"]);
    expect(hash(await t.content())).toBe(hash(before));
    expect(hash(await t.read("base"))).toBe(hash(base));
    expect(await labelOf(t.graph.get("top"))).toBe("other name");
  });

  it("#75 commits the active layer if no top is given, and pivots when it is completed", async () => {
    const t = await chain(NAMES, 2 * MiB);
    const job = await startCommit(t.services, { device: "vda", jobId: "c0" });
    await t.clock.advance(1000);
    expect(job.status).toBe("ready");
    await t.disk.write(Buffer.alloc(5000, 7), 300_000);
    const before = await t.content();
    await verbs.complete(job);
    await t.clock.runUntil(job.finished);
    expect(job.error).toBe(null);
    expect(t.layers()).toEqual(["base"]);
    expect(hash(await t.content())).toBe(hash(before));
    expect(t.bugs).toEqual([]);
  });

  it("takes the deepest layer for base if none is given", async () => {
    const t = await chain(NAMES, MiB);
    await t.commit({ device: "vda", jobId: "c0", topNode: "mid" });
    expect(t.layers()).toEqual(["top", "base"]);
  });

  it("gives base to every overlay of top, and rewrites the headers of all", async () => {
    const t = await chain(NAMES, MiB);
    const before = await t.content();
    await t.graph.add(tiny("second", { size: MiB, backing: "mid" }));
    const second = await t.read("second");
    const job = await t.commit(MID_TO_BASE);
    expect(job.error).toBe(null);
    expect(t.graph.get("second").children.get("backing")?.node.name).toBe("base");
    for (const name of ["top", "second"]) expect(await labelOf(t.graph.get(name))).toBe("base");
    expect(hash(await t.read("second"))).toBe(hash(second));
    expect(hash(await t.content())).toBe(hash(before));
  });

  it("#76 makes a smaller base as long as top before any copy, and cancelled half way keeps it so, with what was copied", async () => {
    const t = await chain(NAMES, 4 * MiB, { sizes: { base: MiB, low: 2 * MiB } });
    const [before, mid] = [await t.content(), await t.read("mid")];
    t.faulty.fault = { op: "write", errno: "EIO" };
    const paused = await startCommit(t.services, { ...MID_TO_BASE, onError: "stop" });
    await t.clock.advance(100);
    expect(paused.status).toBe("paused");
    expect(t.graph.get("base").state.getLength!(), "nothing copied yet").toBe(4 * MiB);
    t.faulty.fault = null;
    await verbs.cancel(paused, true);
    await t.clock.runUntil(paused.finished);

    const job = await startCommit(t.services, { ...MID_TO_BASE, speed: MiB });
    await t.clock.advance(1200);
    await verbs.cancel(job, true);
    await t.clock.runUntil(job.finished);
    expect(job.error?.errno).toBe("ECANCELED");
    expect(t.layers()).toEqual(["top", "mid", "low", "base"]);
    expect(hash(await t.content())).toBe(hash(before));
    const base = await t.read("base");
    const done = job.progress.current;
    expect(done).toBeGreaterThanOrEqual(MiB);
    expect(base.length).toBe(4 * MiB);
    expect(hash(base.subarray(0, done)), "as far as it got").toBe(hash(mid.subarray(0, done)));
    expect(hash(base), "and no further").not.toBe(hash(mid));

    await t.commit(MID_TO_BASE);
    expect(hash(await t.content())).toBe(hash(before));
    expect(hash(await t.read("base"))).toBe(hash(mid));
  });

  it("#76 does not let a grandparent show through the new end of base", async () => {
    const t = await chain(["old", "base", "mid", "top"], 4 * MiB, { sizes: { base: MiB } });
    const before = await t.content();
    await t.commit(MID_TO_BASE);
    expect(t.layers()).toEqual(["top", "base", "old"]);
    expect(hash(await t.content())).toBe(hash(before));
  });

  it("does not let the end of a longer base show through an overlay that top ended before", async () => {
    const sizes = { low: MiB, mid: 2 * MiB };
    for (const baseBytes of [4 * MiB, 3 * MiB, 6 * MiB]) {
      const t = await chain(NAMES, 4 * MiB, { sizes: { ...sizes, base: baseBytes } });
      const before = await t.content();
      expect(before.subarray(2 * MiB).includes(1), "zeroes up there").toBe(false);
      const job = await t.commit(MID_TO_BASE);
      expect(job.error).toBe(null);
      expect(t.layers()).toEqual(["top", "base"]);
      expect(hash(await t.content()), `base ${baseBytes}`).toBe(hash(before));
      expect((await t.read("base")).length).toBe(Math.max(baseBytes, 2 * MiB));
    }
  });

  it("#77 makes base zero where mid is, and leaves no data of base behind there", async () => {
    const t = await chain(["base", "mid", "top"], 2 * MiB);
    const writer = t.open("mid", "writer");
    await writer.writeZeroes(0, MiB);
    await t.graph.closeBackend(writer);
    const before = await t.content();
    const job = await t.commit(MID_TO_BASE);
    expect(job.progress.current).toBe(2 * MiB);
    expect(hash(await t.content())).toBe(hash(before));
    const base = t.open("base", "look");
    expect(await base.edge.status(0, 2 * MiB)).toMatchObject({ zero: true, allocated: true });
    let zeroes = 0;
    for (let at = 0; at < MiB; ) {
      const run = await base.edge.status(at, MiB - at);
      if (run.zero) zeroes += run.bytes;
      at += run.bytes;
    }
    expect(zeroes).toBe(MiB);
  });

  it("#52 counts to the length of top, passed bytes too", async () => {
    const t = await chain(NAMES, 3 * MiB);
    const job = await t.commit(MID_TO_BASE);
    expect([job.progress.current, job.progress.total]).toEqual([3 * MiB, 3 * MiB]);
    const empty = await chain(NAMES, 0);
    const nothing = await empty.commit(MID_TO_BASE);
    expect([nothing.progress.current, nothing.progress.total]).toEqual([0, 0]);
    expect(empty.story()).toBe(SUCCESS);
    expect(empty.layers()).toEqual(["top", "base"]);
  });

  it("#83 does not show its filter to who asks for the device, unless it was given a name", async () => {
    const t = await chain(NAMES, 2 * MiB);
    const shown = () => JSON.stringify(nodeInfo(t.disk.node, { skipImplicit: true }).image);
    const before = shown();
    const job = await startCommit(t.services, { ...MID_TO_BASE, speed: KiB });
    expect(shown()).toBe(before);
    await verbs.cancel(job, true);
    await t.clock.runUntil(job.finished);
    expect(shown()).toBe(before);
    const named = await startCommit(t.services, {
      ...MID_TO_BASE,
      speed: KiB,
      filterNodeName: "f",
    });
    expect(t.graph.get("f").driver.name).toBe("commit_top");
    await expect(t.graph.remove("f")).rejects.toMatchObject({ errno: "EBUSY" });
    await verbs.cancel(named, true);
    await t.clock.runUntil(named.finished);
    expect(t.graph.find("f")).toBeUndefined();
  });

  it("makes a read-only base writable for the time of the job, and read-only overlays for their header", async () => {
    for (const cancelled of [false, true]) {
      const t = await chain(["base", "mid", "over", "top"], 2 * MiB);
      for (const name of ["base", "over"])
        await t.graph.reopen(t.graph.get(name), { readOnly: true });
      const before = await t.content();
      const job = await startCommit(t.services, {
        ...MID_TO_BASE,
        speed: cancelled ? 64 * KiB : 0,
      });
      expect(t.graph.get("base").readOnly).toBe(false);
      await t.clock.advance(cancelled ? 700 : 0);
      if (cancelled) await verbs.cancel(job, true);
      await t.clock.runUntil(job.finished);
      expect(job.error?.errno).toBe(cancelled ? "ECANCELED" : undefined);
      for (const name of ["base", "over"]) expect(t.graph.get(name).readOnly, name).toBe(true);
      expect(await labelOf(t.graph.get("over"))).toBe(cancelled ? undefined : "base");
      expect(t.layers()).toEqual(
        cancelled ? ["top", "over", "mid", "base"] : ["top", "over", "base"],
      );
      expect(hash(await t.content())).toBe(hash(before));
      expect(t.bugs).toEqual([]);
    }
  });

  it("closes the layers that nobody else has opened", async () => {
    const t = await chain(["top"], MiB);
    await t.graph.closeBackend(t.disk);
    await t.graph.add(
      tiny("over", { backing: tiny("mid", { backing: tiny("low", { backing: "top" }) }) }),
    );
    const disk = t.open("over", "vdb");
    const job = await t.commit({ device: "vdb", jobId: "c0", topNode: "mid", baseNode: "top" });
    expect(job.error).toBe(null);
    expect(t.graph.nodes.map((node) => node.name).filter((n) => !n.startsWith("#"))).toEqual([
      "top",
      "over",
    ]);
    expect(t.graph.nodes).toHaveLength(4); // Each with its file.
    await t.graph.closeBackend(disk);
  });
});

describe("a block-commit that is refused", () => {
  it("#79 says which name is wrong, and leaves no job, filter or right behind", async () => {
    const t = await chain(NAMES, MiB);
    await t.graph.add(tiny("stranger", { size: MiB }));
    const wrong: [Partial<CommitOptions>, string, string][] = [
      [{ device: "nope", topNode: "nope" }, "DeviceNotFound", "Cannot find device or node 'nope'"],
      [{ device: "" }, "DeviceNotFound", "Cannot find device or node ''"],
      [{ device: "mid" }, "GenericError", "is below node 'top'"],
      [{ topNode: "nope" }, "GenericError", "Cannot find node 'nope'"],
      [{ topNode: "stranger" }, "GenericError", "'stranger' is not in the chain of node 'top'"],
      [{ topNode: undefined, top: "nope" }, "GenericError", "'nope' is not in the chain"],
      [{ baseNode: "nope" }, "GenericError", "Cannot find node 'nope'"],
      [{ baseNode: undefined, base: "nope" }, "GenericError", "'nope' is not in the chain"],
      [{ baseNode: "stranger" }, "GenericError", "'stranger' is not in the chain of node 'mid'"],
      [
        { topNode: "low", baseNode: "mid" },
        "GenericError",
        "'mid' is not in the chain of node 'low'",
      ],
      [{ baseNode: "mid" }, "GenericError", "committed into itself"],
      [{ topNode: "base", baseNode: undefined }, "GenericError", "no backing file"],
      [{ top: "x" }, "GenericError", "'top' and 'top-node' exclude each other"],
      [{ base: "x" }, "GenericError", "'base' and 'base-node' exclude each other"],
      [{ topNode: undefined, backingFile: "x" }, "GenericError", "is the active layer"],
      [{ jobId: "0id" }, "GenericError", "Invalid job ID"],
      [{ speed: -1 }, "GenericError", "expects 0 or more"],
      [{ filterNodeName: "low" }, "GenericError", "There is a node 'low' already"],
    ];
    const before = t.graph.nodes.length;
    for (const [options, kind, text] of wrong) {
      const refused = startCommit(t.services, { ...MID_TO_BASE, ...options });
      const told = expect(refused, JSON.stringify(options)).rejects;
      await told.toMatchObject({ class: kind, message: expect.stringContaining(text) });
      expect(t.services.jobs.query()).toEqual([]);
      expect(t.graph.nodes).toHaveLength(before);
      for (const node of t.graph.nodes) expect(node.blockers.size, node.name).toBe(0);
    }
    expect(t.story()).toBe("created null"); // The negative speed.
    await t.commit(MID_TO_BASE);
    expect(t.layers()).toEqual(["top", "base"]);
  });

  it("#79 #66 keeps others out of its nodes while it runs, and is kept out", async () => {
    const t = await chain(["base", "low", "mid", "high", "top"], 2 * MiB);
    const job = await startCommit(t.services, { ...MID_TO_BASE, baseNode: "low", speed: KiB });
    for (const device of ["vda", "mid", "low"]) {
      await expect(startStream(t.services, { device, jobId: "s0" }), device).rejects.toMatchObject({
        errno: "EBUSY",
        message: expect.stringMatching(
          /^Node '\w+' is busy: block device is in use by .*: commit$/,
        ),
      });
    }
    const again = startCommit(t.services, { ...MID_TO_BASE, jobId: "c1" });
    await expect(again).rejects.toMatchObject({ errno: "EBUSY" });
    for (const name of ["top", "mid", "low"]) {
      await expect(t.graph.remove(name), name).rejects.toThrow(`'${name}' is busy`);
    }
    // Nobody may read what is being merged, nor write to what it is merged into.
    expect(() => open("mid", Perm.consistentRead)).toThrow(/conflict/);
    expect(() => open("low", Perm.write)).toThrow(/conflict/);
    open("low", Perm.consistentRead);
    open("high", Perm.consistentRead);
    await verbs.cancel(job, true);
    await t.clock.runUntil(job.finished);

    const stream = await startStream(t.services, {
      device: "high",
      jobId: "s1",
      baseNode: "low",
      speed: KiB,
    });
    // low itself is free, but its overlay is not.
    for (const topNode of ["high", "mid", "low"]) {
      const refused = startCommit(t.services, { device: "vda", jobId: "c2", topNode });
      await expect(refused, topNode).rejects.toMatchObject({ errno: "EBUSY" });
    }
    const jobs = t.services.jobs.all();
    stream.setSpeed(0);
    await t.clock.runUntil(Promise.all(jobs.map((one) => one.finished)));
    expect(t.bugs).toEqual([]);

    function open(node: string, take: number) {
      return t.graph.openBackend(t.graph.get(node), {
        name: "",
        description: "somebody",
        permissions: { take, share: Perm.all },
      });
    }
  });
});

describe("a block-commit in trouble", () => {
  const stores = { low: "faulty-mid" };
  const sides = [
    ["read", "midStore"],
    ["write", "faulty"],
  ] as const;

  it.each(sides)(
    "#78 #56 on a %s error: report fails the job with it at once",
    async (op, store) => {
      const t = await chain(NAMES, 2 * MiB, { stores });
      const before = await t.content();
      t[store].fault = { op, errno: "EIO" };
      const job = await t.commit({ ...MID_TO_BASE, onError: "report" });
      t[store].fault = null;
      expect(job.error).toMatchObject({ errno: "EIO", message: `Injected ${op} error` });
      expect(job.error?.at).toMatchObject({ node: op === "read" ? "mid" : "base", op });
      expect(t.story()).toBe(
        `created running ERROR(${op},report) aborting COMPLETED(Injected ${op} error) concluded null`,
      );
      expect(t.layers()).toEqual(["top", "mid", "low", "base"]);
      expect(hash(await t.content())).toBe(hash(before));
      expect(t.graph.nodes.filter((node) => node.driver.kind === "filter")).toEqual([]);
    },
  );

  it.each(sides)(
    "#78 #56 on a %s error: stop pauses once, and resume tries the same bytes again",
    async (op, store) => {
      const t = await chain(NAMES, 4 * MiB, { stores });
      const [before, mid] = [await t.content(), await t.read("mid")];
      t[store].fault = { op, errno: "EIO", after: 3 };
      const job = await startCommit(t.services, { ...MID_TO_BASE, onError: "stop" });
      await t.clock.advance(1000);
      expect([job.status, job.ioStatus]).toEqual(["paused", "failed"]);
      expect(t.story()).toBe(`created running ERROR(${op},stop) paused`);
      await verbs.resume(job);
      await t.clock.advance(1000);
      expect([job.status, t.story()]).toEqual(["paused", `running ERROR(${op},stop) paused`]);
      t[store].fault = null;
      await verbs.resume(job);
      await t.clock.runUntil(job.finished);
      expect(job.error).toBe(null);
      expect(job.progress.current).toBe(4 * MiB);
      expect(hash(await t.content())).toBe(hash(before));
      expect(hash(await t.read("base"))).toBe(hash(mid));
    },
  );

  it.each(sides)(
    "#78 #56 on a %s error: ignore tries the same bytes again, a few times a second, until they go",
    async (op, store) => {
      const t = await chain(NAMES, 4 * MiB, { stores });
      const [before, mid] = [await t.content(), await t.read("mid")];
      t[store].fault = { op, errno: "EIO" };
      const job = await startCommit(t.services, { ...MID_TO_BASE, onError: "ignore" });
      await t.clock.advance(10_000);
      expect(job.status).toBe("running");
      expect(job.ioStatus).toBe("ok");
      const errors = t
        .story()
        .split(" ")
        .filter((word) => word === `ERROR(${op},ignore)`).length;
      expect(errors).toBeGreaterThan(5);
      expect(errors, "six in flight, and some twenty tries").toBeLessThan(150);
      t[store].fault = null;
      await t.clock.runUntil(job.finished);
      expect(job.error).toBe(null);
      expect([job.progress.current, job.progress.total]).toEqual([4 * MiB, 4 * MiB]);
      expect(t.layers()).toEqual(["top", "base"]);
      expect(hash(await t.content())).toBe(hash(before));
      expect(hash(await t.read("base"))).toBe(hash(mid));
    },
  );

  it("#57 on a full base: enospc pauses with io-status nospace, and goes on when there is room", async () => {
    const t = await chain(NAMES, 2 * MiB);
    t.faulty.fault = { op: "write", errno: "ENOSPC" };
    const job = await startCommit(t.services, { ...MID_TO_BASE, onError: "enospc" });
    await t.clock.advance(1000);
    expect([job.status, job.ioStatus]).toEqual(["paused", "nospace"]);
    t.faulty.fault = null;
    await verbs.resume(job);
    expect(job.ioStatus).toBe("ok");
    await t.clock.runUntil(job.finished);
    expect(t.layers()).toEqual(["top", "base"]);
  });

  it("asks the policy about base's last flush, and does not touch the chain before it went well", async () => {
    const t = await chain(NAMES, MiB);
    t.faulty.fault = { op: "flush", errno: "ENOSPC" };
    const job = await startCommit(t.services, { ...MID_TO_BASE, onError: "stop" });
    await t.clock.advance(1000);
    expect(t.story()).toBe("created running ERROR(write,stop) paused");
    expect(t.layers()).toHaveLength(4);
    t.faulty.fault = null;
    await verbs.resume(job);
    await t.clock.runUntil(job.finished);
    expect(t.layers()).toEqual(["top", "base"]);

    const failed = await chain(NAMES, MiB);
    failed.faulty.fault = { op: "flush", errno: "EIO" };
    expect((await failed.commit(MID_TO_BASE)).error?.errno).toBe("EIO");
    expect(failed.layers()).toHaveLength(4);
  });

  it("fails when a header cannot be written: the links stay, and the headers that were are put back", async () => {
    const t = await chain(NAMES, MiB);
    await t.graph.add(tiny("second", { backing: "mid", sealed: true }));
    await t.graph.get("top").state.changeBackingFile!("old", "tiny");
    const before = await t.content();
    const job = await t.commit(MID_TO_BASE);
    expect(job.error?.errno).toBe("EIO");
    expect(t.story()).toMatch(/pending aborting COMPLETED\(The header cannot be written\) con/);
    expect(t.layers()).toEqual(["top", "mid", "low", "base"]);
    expect(t.graph.get("second").children.get("backing")?.node.name).toBe("mid");
    expect(await labelOf(t.graph.get("top"))).toBe("old");
    expect(hash(await t.content())).toBe(hash(before));
    expect(t.graph.nodes.filter((node) => node.driver.kind === "filter")).toEqual([]);
    expect(t.bugs).toEqual([]);
  });
});

describe("block-commit and time", () => {
  it("#13 paused stands still, and after the resume completes", async () => {
    const t = await chain(NAMES, 4 * MiB);
    const before = await t.content();
    const job = await startCommit(t.services, { ...MID_TO_BASE, speed: MiB });
    await t.clock.advance(600);
    await verbs.pause(job);
    await t.clock.advance(1);
    const offset = job.progress.current;
    await t.clock.advance(10_000);
    expect([job.status, job.progress.current]).toEqual(["paused", offset]);
    await verbs.resume(job);
    await t.clock.runUntil(job.finished);
    expect(t.story()).toBe(`created running paused ${SUCCESS.slice("created ".length)}`);
    expect(hash(await t.content())).toBe(hash(before));
  });

  it("#50 at speed 1 stands almost still; lower leaves it so, 0 ends it at once", async () => {
    const t = await chain(NAMES, 4 * MiB);
    const job = await startCommit(t.services, { ...MID_TO_BASE, speed: 2 });
    await t.clock.advance(60_000);
    const offset = job.progress.current;
    expect(offset).toBeLessThan(2 * MiB);
    job.setSpeed(1);
    await t.clock.advance(1000);
    expect(job.progress.current).toBe(offset);
    await verbs.pause(job);
    await t.clock.advance(0);
    expect(job.status).toBe("paused");
    await verbs.resume(job);
    const now = t.clock.now();
    job.setSpeed(0);
    await t.clock.runUntil(job.finished);
    expect(t.clock.now() - now).toBeLessThan(50);

    const second = await chain(NAMES, 4 * MiB);
    const sleeping = await startCommit(second.services, { ...MID_TO_BASE, speed: 1 });
    await second.clock.advance(5000);
    const then = second.clock.now();
    await verbs.cancel(sleeping, true);
    await second.clock.runUntil(sleeping.finished);
    expect(second.clock.now() - then).toBeLessThan(50);
    expect(sleeping.error?.errno).toBe("ECANCELED");
  });

  it("#51b refuses a negative speed, and any speed when it is pending", async () => {
    const t = await chain(NAMES, MiB);
    const job = await startCommit(t.services, { ...MID_TO_BASE, autoFinalize: false });
    expect(() => job.setSpeed(-1)).toThrow("expects 0 or more");
    await t.clock.advance(1000);
    expect(job.status).toBe("pending");
    expect(() => job.setSpeed(1)).toThrow(/set-speed/);
    await verbs.finalize(job);
    expect(t.layers()).toEqual(["top", "base"]);
  });

  it("#82 ends while slow guest reads of the chain are under way", async () => {
    const t = await chain(["base", "mid", "top"], 2 * MiB);
    const before = await t.content();
    const job = await startCommit(t.services, { ...MID_TO_BASE, autoFinalize: false });
    await t.clock.advance(1000);
    t.faulty.hear = (op) => (op === "read" ? sleep(300) : undefined);
    const buf = Buffer.alloc(2 * MiB);
    const reads: Promise<void>[] = [];
    for (let at = 0; at < buf.length; at += 128 * KiB) {
      reads.push(t.disk.read(buf.subarray(at, at + 128 * KiB), at));
    }
    await t.clock.advance(10);
    // The links change when the last of them is through, and not under it.
    let readsLeft = reads.length;
    for (const read of reads) void read.then(() => readsLeft--);
    const finalized = verbs.finalize(job).then(() => expect(readsLeft).toBe(0));
    await t.clock.runUntil(Promise.all([...reads, finalized]));
    expect(job.error).toBe(null);
    expect(hash(buf)).toBe(hash(before));
    t.faulty.hear = null;
    expect(hash(await t.content())).toBe(hash(before));
    expect(t.layers()).toEqual(["top", "base"]);

    function sleep(ms: number): Promise<void> {
      return new Promise((resolve) => void t.clock.setTimer(ms, resolve));
    }
  });
});

describe("block-commit and filters", () => {
  it("#80 takes out the filters within its range, and leaves those below and above", async () => {
    const t = await chain(["old", "base", "low", "mid", "top"], 2 * MiB);
    const before = await t.content();
    for (const [name, below] of [
      ["f-old", "old"],
      ["f-low", "low"],
      ["f-mid", "mid"],
    ] as const) {
      await t.graph.insertFilter({ driver: "pass", "node-name": name }, t.graph.get(below));
    }
    const job = await t.commit({ ...MID_TO_BASE, baseNode: "base" });
    expect(job.error).toBe(null);
    expect(names()).toEqual(["top", "f-mid", "base", "f-old", "old"]);
    expect(await labelOf(t.graph.get("top"))).toBe("base");
    expect(hash(await t.content())).toBe(hash(before));

    const second = await t.commit({
      device: "vda",
      jobId: "c1",
      topNode: "base",
      baseNode: "f-old",
    });
    expect(second.error).toBe(null);
    expect(names()).toEqual(["top", "f-mid", "f-old", "old"]);
    expect(await labelOf(t.graph.get("top"))).toBe("old");
    expect(hash(await t.content())).toBe(hash(before));

    function names(): string[] {
      const found: string[] = [];
      for (let node: BlockNode | undefined = t.disk.node; node; ) {
        found.push(node.name);
        node = node.children.get(node.driver.kind === "filter" ? "file" : "backing")?.node;
      }
      return found;
    }
  });

  it("#80 takes out a filter right above base, and one that is top itself", async () => {
    const t = await chain(["base", "mid", "top"], 2 * MiB);
    const before = await t.content();
    await t.graph.insertFilter({ driver: "pass", "node-name": "f1" }, t.graph.get("base"));
    await t.graph.insertFilter({ driver: "pass", "node-name": "f2" }, t.graph.get("mid"));
    const job = await t.commit({ ...MID_TO_BASE, topNode: "f2" });
    expect(job.error).toBe(null);
    expect(t.disk.node.children.get("backing")?.node.name).toBe("base");
    expect(hash(await t.content())).toBe(hash(before));
  });

  it("#80 keeps a filter above an active top, unless that is top itself", async () => {
    for (const topNode of ["top", undefined]) {
      const t = await chain(["base", "mid", "top"], MiB);
      const before = await t.content();
      await t.graph.insertFilter({ driver: "pass", "node-name": "f" }, t.graph.get("top"));
      const job = await startCommit(t.services, { device: "vda", jobId: "c0", topNode });
      await t.clock.advance(1000);
      await verbs.complete(job);
      await t.clock.runUntil(job.finished);
      expect(job.error).toBe(null);
      expect(t.disk.node.name).toBe(topNode === "top" ? "f" : "base");
      expect(t.layers()).toEqual(["base"]);
      expect(hash(await t.content())).toBe(hash(before));
    }
  });
});

function tiny(name: string, more: Partial<BlockdevOptions> = {}): BlockdevOptions {
  return {
    driver: "tiny",
    "node-name": name,
    file: { driver: "memory", size: 0 },
    size: MiB,
    "cluster-size": 64 * KiB,
    ...more,
  };
}
