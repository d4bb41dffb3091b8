/** blkdebug: which requests fail, what reaches the image, and where requests stop. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { MiB } from "../../../src/base/bytes.ts";
import { seededRandom } from "../../../src/base/random.ts";
import {
  breakpoint,
  type DebugEvent,
  isSuspended,
  removeBreak,
  resume,
  waitBreak,
} from "../../../src/block/debug.ts";
import { Perm } from "../../../src/block/permissions.ts";
import { chainStatus } from "../../../src/block/status.ts";
import { run, runWell } from "../../spawn.ts";
import { hasQemu, qemuCheck, testFolder } from "../format/rig.ts";
import { contentOf, filled, filterRig, outcome } from "./rig.ts";

const folder = testFolder();

/** A raw disk on blkdebug on a store that notes what it is asked. */
async function debugged(options: object, size = MiB) {
  const rig = await filterRig();
  const file = {
    driver: "blkdebug",
    "node-name": "debug",
    image: { driver: "spy", size },
    ...options,
  };
  const disk = await rig.open({ driver: "raw", file });
  return { ...rig, disk, node: disk.node };
}

function image(name: string): string {
  const filename = join(folder, name);
  runWell("qemu-img", ["create", "-q", "-f", "qcow2", filename, "4M"]);
  return filename;
}

/** A qcow2 disk on blkdebug, made by qemu-img. */
async function qcow2(filename: string, options: object) {
  const rig = await filterRig();
  const file = { driver: "blkdebug", image: { driver: "file", filename }, ...options };
  return { ...rig, disk: await rig.open({ driver: "qcow2", file }) };
}

describe("inject-error", () => {
  it("fails requests of a kind that touch a sector, with the errno asked for", async () => {
    const rule = { event: "read_aio", iotype: "read", sector: 4, errno: 28 };
    const { disk } = await debugged({ "inject-error": [rule] });
    expect(await outcome(disk.write(filled(512, 1), 4 * 512))).toBe("ok");
    expect(await outcome(disk.read(new Uint8Array(512), 4 * 512))).toBe("ENOSPC");
    expect(await outcome(disk.read(new Uint8Array(1536), 512))).toBe("ok");
    expect(await outcome(disk.read(new Uint8Array(1537), 512))).toBe("ENOSPC");
    expect(await outcome(disk.read(new Uint8Array(512), 5 * 512))).toBe("ok");
    expect(await outcome(disk.write(filled(512, 1), 4 * 512))).toBe("ok");
  });

  it("fails reads, writes, zero writes, discards and flushes, but no status, by default", async () => {
    const { disk, node } = await debugged({ "inject-error": [{ event: "none" }] });
    const kinds = [
      disk.read(new Uint8Array(1), 0),
      disk.write(filled(1, 1), 0),
      disk.writeZeroes(0, 512),
      disk.discard(0, 512),
      disk.flush(),
    ];
    expect(await Promise.all(kinds.map(outcome))).toEqual(Array(5).fill("EIO"));
    expect(await outcome(chainStatus(node, null, 0, 512))).toBe("ok");
  });

  it("fails queries for what is allocated only when told to", async () => {
    const rule = { event: "none", iotype: "block-status", errno: 5 };
    const { disk, node, graph } = await debugged({ "inject-error": [rule] });
    expect(await outcome(chainStatus(node, null, 0, 512))).toBe("EIO");
    expect(await outcome(chainStatus(graph.get("debug"), null, 0, 512))).toBe("EIO");
    expect(await outcome(disk.read(new Uint8Array(1), 0))).toBe("ok");
  });

  it("fails once, if told so, and then never again", async () => {
    const rule = { event: "write_aio", once: true, immediately: true };
    const { disk } = await debugged({ "inject-error": [rule] });
    const results = [];
    for (let i = 0; i < 3; i++) results.push(await outcome(disk.write(filled(1, 1), 0)));
    expect(results).toEqual(["EIO", "ok", "ok"]);
  });

  it("leaves a rule active until an event with others comes; errno 0 lets requests pass", async () => {
    const { disk } = await debugged({
      "inject-error": [
        { event: "none", iotype: "flush" },
        { event: "write_aio", iotype: "write", errno: 0 },
        { event: "write_aio", errno: 28 },
      ],
    });
    expect(await outcome(disk.flush())).toBe("EIO");
    expect(await outcome(disk.write(filled(1, 1), 0))).toBe("ok");
    expect(await outcome(disk.flush())).toBe("ENOSPC");
    expect(await outcome(disk.discard(0, 512))).toBe("ENOSPC");
  });

  it("counts rules in their state only, which set-state changes with the next event", async () => {
    const { disk } = await debugged({
      "set-state": [
        { event: "flush_to_disk", state: 1, new_state: 2 },
        { event: "flush_to_disk", state: 2, new_state: 3 },
      ],
      "inject-error": [
        { event: "write_aio", state: 2, errno: 28, iotype: "write" },
        { event: "write_aio", state: 3, errno: 5, iotype: "write" },
      ],
    });
    const write = () => outcome(disk.write(filled(1, 1), 0));
    expect(await write()).toBe("ok");
    await disk.flush();
    expect(await write()).toBe("ENOSPC");
    await disk.flush();
    expect(await write()).toBe("EIO");
  });

  it("makes a zero write that cannot be one a write of zeroes", async () => {
    const rule = { event: "none", iotype: "write-zeroes", errno: 95 };
    const { disk, heard } = await debugged({ "inject-error": [rule] });
    await disk.writeZeroes(0, 1024);
    expect(heard()).toEqual(["write 0+1024"]);
  });

  it("refuses what does not exist or does not fit", async () => {
    const { graph } = await filterRig();
    const wrong: [object, string][] = [
      [{ "inject-error": [{ event: "nope" }] }, "does not accept value 'nope'"],
      [{ "inject-error": [{ event: "none", errno: 999 }] }, "No error has the number 999"],
      [{ "inject-error": [{ event: "none", iotype: "x" }] }, "does not accept value 'x'"],
      [{ align: 3 }, "'align' cannot be 3"],
      [{ align: 512, "max-transfer": 1000 }, "'max-transfer' cannot be 1000"],
      [{ "opt-write-zero": 4096, "max-write-zero": 6000 }, "'max-write-zero' cannot be 6000"],
      [{ "opt-discard": 4096, "max-discard": 6000 }, "'max-discard' cannot be 6000"],
      [{ config: "/etc/passwd" }, "'config' is unexpected"],
      [{ file: "m" }, "'file' is unexpected"],
    ];
    for (const [options, text] of wrong) {
      const image = { driver: "memory", size: 512 };
      const adding = graph.add({ driver: "blkdebug", "node-name": "n", image, ...options });
      await expect(adding, JSON.stringify(options)).rejects.toThrow(text);
    }
    const without = graph.add({ driver: "blkdebug", "node-name": "n" });
    await expect(without).rejects.toThrow("Parameter 'image' is missing");
    expect(graph.nodes).toEqual([]);
  });
});

describe("the limits of blkdebug", () => {
  it("align makes requests whole, by reading what is around them", async () => {
    const { disk, heard } = await debugged({ align: 4096 }, 10_000);
    await disk.write(filled(10, 7), 5000);
    expect(heard()).toEqual(["read 4096+4096", "write 4096+4096"]);
    await disk.write(filled(10, 8), 9000); // The end of the disk counts as aligned.
    expect(heard()).toEqual(["read 8192+1808", "write 8192+1808"]);
    await disk.read(new Uint8Array(1), 1);
    expect(heard()).toEqual(["read 0+4096"]);
    const content = await contentOf(disk);
    expect([...content.subarray(4998, 5012)]).toEqual([0, 0, ...Array(10).fill(7), 0, 0]);
    expect(content.length).toBe(10_000);
  });

  it("max-transfer, max-write-zero and max-discard cut requests up", async () => {
    const { disk, heard } = await debugged({
      align: 512,
      "max-transfer": 1024,
      "max-write-zero": 2048,
      "max-discard": 4096,
    });
    await disk.write(filled(2560, 1), 512);
    await disk.writeZeroes(0, 5120);
    await disk.discard(0, 5120);
    expect(heard()).toEqual([
      ...["write 512+1024", "write 1536+1024", "write 2560+512"],
      ...["zero 0+2048", "zero 2048+2048", "zero 4096+1024"],
      ...["discard 0+4096", "discard 4096+1024"],
    ]);
  });

  it("opt-write-zero and opt-discard let only whole granules be what they are", async () => {
    const { disk, heard } = await debugged({ "opt-write-zero": 4096, "opt-discard": 8192 });
    await disk.writeZeroes(1024, 8192);
    await disk.writeZeroes(1024, 1024);
    await disk.discard(4096, 16384);
    await disk.discard(4096, 4096);
    expect(heard()).toEqual([
      ...["write 1024+3072", "zero 4096+4096", "write 8192+1024"],
      "write 1024+1024",
      "discard 8192+8192",
    ]);
  });

  it("take-child-perms and unshare-child-perms conflict with other users of the image", async () => {
    const { graph, device } = await filterRig();
    await graph.add({ driver: "memory", "node-name": "m", size: 512 });
    const other = device("m");
    const add = (options: object) =>
      graph.add({ driver: "blkdebug", "node-name": "n", image: "m", ...options });
    const unshared = add({ "unshare-child-perms": ["write"] });
    await expect(unshared).rejects.toMatchObject({ errno: "EPERM" });
    await graph.closeBackend(other);
    const greedy = await add({ "take-child-perms": ["resize"], "unshare-child-perms": ["write"] });
    expect(greedy.children.get("file")?.permissions.take).toBe(Perm.resize);
    expect(() => device("m")).toThrow("does not share");
  });
});

describe("a breakpoint", () => {
  it("stops one request at its event, once, until it is resumed", async () => {
    const { disk, node, heard, clock } = await debugged({});
    breakpoint(node, "write_aio", "A");
    const first = disk.write(filled(512, 1), 0);
    await waitBreak(node, "A");
    const second = disk.write(filled(512, 2), 4096);
    await clock.runUntil(second);
    expect(heard()).toEqual(["write 4096+512"]);
    expect(isSuspended(node, "A")).toBe(true);
    resume(node, "A");
    await first;
    expect(heard()).toEqual(["write 0+512"]);
    expect(isSuspended(node, "A")).toBe(false);
    expect(() => resume(node, "A")).toThrow("no breakpoint 'A'");
  });

  it("holds a drain up, as any request does", async () => {
    const { disk, node, graph, clock } = await debugged({});
    breakpoint(node, "pwritev_done", "A");
    const write = disk.write(filled(512, 1), 0);
    await waitBreak(node, "A");
    let drained = false;
    const drain = graph.drained([node], () => {
      drained = true;
    });
    await clock.advance(1000);
    expect(drained).toBe(false);
    resume(node, "A");
    await Promise.all([write, drain]);
    expect(drained).toBe(true);
  });

  it("can be removed, and then lets its request go", async () => {
    const { disk, node } = await debugged({});
    breakpoint(node, "read_aio", "A");
    breakpoint(node, "flush_to_disk", "A");
    const read = disk.read(new Uint8Array(1), 0);
    await waitBreak(node, "A");
    removeBreak(node, "A");
    await read;
    await disk.flush();
    expect(() => removeBreak(node, "A")).toThrow("no breakpoint 'A'");
  });

  it("gives up a request that nobody wants any more", async () => {
    const { disk, node, heard } = await debugged({});
    const stop = new AbortController();
    breakpoint(node, "write_aio", "A");
    const write = outcome(disk.write(filled(512, 1), 0, { signal: stop.signal }));
    await waitBreak(node, "A");
    stop.abort();
    expect(await write).toBe("ECANCELED");
    expect(isSuspended(node, "A")).toBe(false);
    expect(heard()).toEqual([]);
    const never = new AbortController();
    const waiting = outcome(waitBreak(node, "B", never.signal));
    never.abort();
    expect(await waiting).toBe("ECANCELED");
  });

  it("is refused where no blkdebug is below", async () => {
    const { graph, open } = await filterRig();
    const disk = await open({ driver: "memory", size: 512 });
    expect(() => breakpoint(disk.node, "write_aio", "A")).toThrow("no blkdebug is below");
    expect(graph.nodes).toHaveLength(1);
  });
});

describe.skipIf(!hasQemu)("qcow2 on blkdebug", () => {
  const cases: [string, "read" | "write" | "flush"][] = [
    ["l2_load", "read"],
    ["read_aio", "read"],
    ["cluster_alloc", "write"],
    ["l2_alloc_write", "write"],
    ["refblock_load", "write"],
    ["write_aio", "write"],
    ["cow_write", "write"],
    ["flush_to_os", "flush"],
    ["l2_update", "flush"],
    ["refblock_update", "flush"],
    ["flush_to_disk", "flush"],
  ];
  it.each(cases)("a breakpoint at %s stops the %s until it is resumed", async (...it) => {
    const [event, verb] = it;
    const filename = image(`stop-${event}.qcow2`);
    if (event !== "l2_alloc_write") runWell("qemu-io", ["-c", "write -P 9 2M 64k", filename]);
    const t = await qcow2(filename, {});
    const requests = {
      read: () => t.disk.read(new Uint8Array(512), 2 * MiB),
      write: () => t.disk.write(filled(5000, 3), 70_000),
      flush: () => t.disk.flush(),
    };
    for (const before of ["read", "write", "flush"] as const) {
      if (before === verb) break;
      await requests[before]();
    }
    breakpoint(t.disk.node, event as DebugEvent, "A");
    let isOver = false;
    const request = requests[verb]().then(() => {
      isOver = true;
    });
    await waitBreak(t.disk.node, "A");
    const bytes = readFileSync(filename);
    for (let turn = 0; turn < 20; turn++) await t.clock.advance(0);
    expect(isOver).toBe(false);
    expect(Buffer.compare(readFileSync(filename), bytes)).toBe(0);
    resume(t.disk.node, "A");
    await request;
    await t.close(t.disk);
  });

  it.each(cases)(
    "an error at %s fails the %s; the next try works, the image is sound",
    async (...it) => {
      const [event, verb] = it;
      const filename = image(`${event}.qcow2`);
      if (event !== "l2_alloc_write") runWell("qemu-io", ["-c", "write -P 9 2M 64k", filename]);
      const rule = { event, once: true, errno: 28 };
      const { disk, close } = await qcow2(filename, { "inject-error": [rule] });
      const tryAll = async () => ({
        read: await outcome(disk.read(new Uint8Array(512), 2 * MiB)),
        write: await outcome(disk.write(filled(5000, 3), 70_000)),
        flush: await outcome(disk.flush()),
      });
      const first = await tryAll();
      expect({ ...first, [verb]: "ok" }).toEqual({ read: "ok", write: "ok", flush: "ok" });
      expect(first[verb]).toBe("ENOSPC");
      expect(await tryAll()).toEqual({ read: "ok", write: "ok", flush: "ok" });
      await close(disk);
      expect(qemuCheck(folder, filename)).toMatchObject({ status: 0 });
      const io = runWell("qemu-io", ["-c", "read -P 3 70000 5000", filename]);
      expect(io).not.toMatch(/fail/i);
    },
  );
});

describe.skipIf(!hasQemu)("the same rules in QEMU", () => {
  it("fail the same requests with the same errors (seeded)", async () => {
    const filename = join(folder, "same.raw");
    runWell("qemu-img", ["create", "-q", "-f", "raw", filename, "64k"]);
    for (let seed = 1; seed <= 40; seed++) {
      const { options, requests } = randomRun(seed);
      const rig = await filterRig();
      const file = { driver: "blkdebug", ...options, image: { driver: "memory", size: 65536 } };
      const disk = await rig.open({ driver: "raw", file });
      const ours = [];
      for (const { verb, offset, bytes } of requests) {
        const request = {
          read: () => disk.read(new Uint8Array(bytes), offset),
          write: () => disk.write(filled(bytes, 1), offset),
          "write -z": () => disk.writeZeroes(offset, bytes),
        }[verb];
        ours.push(await rig.clock.runUntil(outcome(request())));
      }
      expect(ours, `seed ${seed}: ${JSON.stringify({ options, requests })}`).toEqual(
        inQemu(filename, options, requests),
      );
    }
  });
});

interface Request {
  readonly verb: "read" | "write" | "write -z";
  readonly offset: number;
  readonly bytes: number;
}

function randomRun(seed: number) {
  const random = seededRandom(seed);
  const pick = <T>(list: readonly T[]): T => list[random.below(list.length)]!;
  const events = ["read_aio", "write_aio", "pwritev", "pwritev_zero", "pwritev_done", "none"];
  const inject = Array.from({ length: 1 + random.below(5) }, () => ({
    event: pick(events),
    state: random.below(4),
    errno: pick([5, 28, 0]),
    once: random.below(2) === 0,
    immediately: random.below(2) === 0,
    ...(random.below(2) === 0 && { sector: random.below(16) }),
    ...(random.below(2) === 0 && { iotype: pick(["read", "write", "write-zeroes"]) }),
  }));
  const setState = Array.from({ length: random.below(7) }, () => ({
    event: pick(events.slice(0, 3)),
    state: random.below(2) * random.below(4),
    new_state: 1 + random.below(3),
  }));
  const align = 512 * 2 ** random.below(3);
  const options = {
    align,
    "inject-error": inject,
    // QEMU takes no empty list.
    ...(setState.length > 0 && { "set-state": setState }),
  };
  const requests = Array.from({ length: 12 }, (): Request => {
    const verb = pick(["read", "write", "write -z"] as const);
    // Writes are aligned: QEMU goes on, with rubbish, if it cannot read what is around one that is not.
    const granule = verb === "read" ? 512 : align;
    const offset = granule * random.below(7);
    return { verb, offset, bytes: granule * (1 + random.below(3)) };
  });
  return { options, requests };
}

function inQemu(filename: string, options: object, requests: readonly Request[]): string[] {
  const json = JSON.stringify({
    driver: "raw",
    file: { driver: "blkdebug", ...options, image: { driver: "file", filename } },
  });
  const commands = requests.flatMap(({ verb, offset, bytes }) => [
    "-c",
    `${verb} ${offset} ${bytes}`,
  ]);
  const { stdout, stderr } = run("qemu-io", ["-t", "writeback", ...commands, `json:${json}`]);
  const lines = `${stdout}${stderr}`.split("\n");
  const results = lines.flatMap((line) => {
    if (/^(wrote|read) \d/.test(line)) return ["ok"];
    if (/No space left/.test(line)) return ["ENOSPC"];
    return /Input\/output error/.test(line) ? ["EIO"] : [];
  });
  expect(results.length, `${stdout}${stderr}`).toBe(requests.length);
  return results;
}
