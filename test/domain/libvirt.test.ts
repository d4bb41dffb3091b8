/** What libvirt's driver answers where a definition or the moment is wrong, and all that its calls can say. */

import { afterEach, beforeEach, expect, it } from "vitest";
import { type ImageDefinition, layersOf } from "../../src/domain/definition.ts";
import {
  BACKUP_BEGIN,
  BLOCK_COMMIT,
  BLOCK_REBASE,
  CHECKPOINT_CREATE,
  CHECKPOINT_DELETE,
  CHECKPOINT_XML,
  DOMAIN_DESC,
  JOB_STATS,
  SNAPSHOT_CREATE,
} from "../../src/domain/flags.ts";
import {
  backupIsOver,
  disk,
  ended,
  GRAIN,
  guest,
  image,
  isReady,
  KiB,
  makeImage,
  makeWorld,
  memory,
  refusal,
  running,
  settle,
  told,
  until,
  type World,
  write,
} from "./world.ts";

let world: World;
beforeEach(async () => {
  world = await makeWorld();
});
afterEach(() => world.end());

it("takes what no call takes for an invalid argument, also in its own thread", async () => {
  const domain = await running(world, { vda: ["a"] });
  const wrong = [
    () => domain.blockPull("vda", "8" as never),
    () => domain.blockPull("vda", Number.NaN),
    () => domain.blockPull("vda", -1),
    () => domain.blockPull("vda", 1.5),
    () => domain.blockPull("vda", 8n as never),
    () => domain.blockPull("vda", null as never),
    () => domain.blockPull(5 as never),
    () => domain.blockPull(undefined as never),
    () => domain.blockPull("vda", 0, "64" as never),
    () => domain.blockRebase("vda", undefined as never),
    () => domain.blockCommit("vda", 1 as never, null),
    () => domain.blockJobAbort({} as never),
    () => domain.blockJobSetSpeed("vda", undefined as never),
    () => domain.getBlockJobInfo(null as never),
    () => domain.blockCopy("vda", image("b"), { speed: 1 } as never),
    () => domain.blockCopy("vda", image("b"), { "buf-size": -1 }),
    () => domain.blockCopy("vda", image("b"), { granularity: 3 }),
  ];
  for (const [at, call] of wrong.entries())
    expect([at, await refusal(world, call())]).toEqual([at, "INVALID_ARG"]);
  for (const [bandwidth, flags] of [
    [2 ** 52 + 1, 64],
    [2 ** 32 + 1, 0],
    [2 ** 43, 0],
    [Number.MAX_SAFE_INTEGER, 0],
  ] as const)
    expect(await refusal(world, domain.blockPull("vda", bandwidth, flags))).toBe("OVERFLOW");
  expect(await world.run(domain.listBlockJobs())).toEqual([]);
  expect([...world.stores.keys()]).toEqual(["a"]);
});

it("says of a domain that does not run what libvirt says of each call", async () => {
  const domain = await running(world, { vda: ["a"] });
  await world.run(domain.checkpointCreate({ name: "one" }));
  await world.run(domain.destroy());
  const invalid = [
    () => domain.blockPull("vda"),
    () => domain.blockRebase("vda", null),
    () => domain.blockCopy("vda", image("b")),
    () => domain.blockCommit("vda", null, null),
    () => domain.blockJobAbort("vda"),
    () => domain.blockJobSetSpeed("vda", 1),
    () => domain.getBlockJobInfo("vda"),
    () => domain.abortJob(),
    () => domain.getJobStats(),
    () => domain.checkpointGetDesc("one", CHECKPOINT_XML.SIZE),
  ];
  for (const call of invalid) expect(await refusal(world, call())).toBe("OPERATION_INVALID");
  const unsupported = [
    () => domain.backupBegin(),
    () => domain.checkpointCreate(),
    () => domain.checkpointDelete("one"),
  ];
  for (const call of unsupported)
    expect(await refusal(world, call())).toBe("OPERATION_UNSUPPORTED");
  expect(await world.run(domain.getJobStats(JOB_STATS.COMPLETED))).toEqual({ type: 0 });
});

it("backs up the disks that are meant, or says which are not", async () => {
  await makeImage(world, "ro");
  await makeImage(world, "rw");
  const disks = [disk("vda", "rw"), { ...disk("vdb", "ro"), readonly: true }];
  const domain = await world.run(world.connection.define({ name: "demo", disks }));
  await world.run(domain.create());
  const refused = [
    { disks: [{ name: "vdz" }] },
    { disks: [{ name: "/memory/rw" }] },
    { disks: [{ name: "vda" }, { name: "vda" }] },
    { disks: [{ name: "vda", backup: "no" }] },
    { disks: [{ name: "vda", backupmode: "incremental" }] },
    { server: { transport: "tcp", port: 10809 } },
  ] as const;
  for (const backup of refused)
    expect(await refusal(world, domain.backupBegin(backup as never))).toBe("CONFIG_UNSUPPORTED");
  const socket = { mode: "pull", server: { transport: "unix", socket: "sock" } } as const;
  expect(await refusal(world, domain.backupBegin(socket))).toBe("XML_ERROR");
  // An empty list is none: all that can be written.
  await world.run(domain.backupBegin({ disks: [] }, { name: "one", disks: [] }));
  await until(world, backupIsOver);
  await settle(world);
  expect([...world.stores.keys()].sort()).toEqual(["ro", "rw", "rw.one"]);
  expect((await world.run(domain.checkpointGetDesc("one"))).disks).toEqual([
    { name: "vda", checkpoint: "bitmap", bitmap: "one" },
    { name: "vdb", checkpoint: "no" },
  ]);
  const taken = { disks: [{ name: "vda", target: memory("ro") }] };
  expect(await refusal(world, domain.backupBegin(taken))).toBe("INVALID_ARG");
});

it("tells what a backup has chosen, in words that it would take again", async () => {
  const domain = await running(world, { vda: ["a"], vdb: ["b"] });
  await world.run(domain.backupBegin({}, { name: "one" }));
  await until(world, backupIsOver);
  await settle(world);
  const disks = [{ name: "vda", exportname: "disk", exportbitmap: "since-one" }];
  await world.run(domain.backupBegin({ mode: "pull", incremental: "one", disks }));
  const told = await world.run(domain.backupGetDesc());
  expect(told).toEqual({
    mode: "pull",
    incremental: "one",
    disks: [
      {
        name: "vda",
        backup: "yes",
        backupmode: "incremental",
        incremental: "one",
        exportname: "disk",
        exportbitmap: "since-one",
        format: "qcow2",
        scratch: { driver: "memory", name: expect.stringMatching(/^a\.\d+$/) },
      },
      { name: "vdb", backup: "no" },
    ],
  });
  const nodes = await world.run(world.client.execute("query-named-block-nodes", { flat: true }));
  const bitmaps = nodes.flatMap((node) => node["dirty-bitmaps"] ?? []).map(({ name }) => name);
  expect(bitmaps.sort()).toEqual(["one", "one", "since-one"]);
  await world.run(domain.abortJob());
  await settle(world);
  await world.run(domain.backupBegin(told));
  expect(await world.run(domain.backupGetDesc())).toEqual(told);
  await world.run(domain.abortJob());
  await settle(world);
  expect(await refusal(world, domain.backupGetDesc())).toBe("NO_DOMAIN_BACKUP");
});

it("tells how far a backup has come when it ends: of a push its bytes, of a pull its scratch files", async () => {
  const domain = await running(world, { vda: ["a"] });
  const last = () => world.run(domain.getJobStats(JOB_STATS.COMPLETED));
  await world.run(domain.backupBegin());
  await until(world, backupIsOver);
  await settle(world);
  const size = 1024 * KiB;
  const whole = { disk_total: size, disk_processed: size, disk_remaining: 0 };
  expect(await last()).toMatchObject({ type: 3, success: true, ...whole });
  world.events.length = 0;
  const disks = [{ name: "vda", format: "raw", target: memory("small") }] as const;
  await world.run(domain.backupBegin({ disks: [...disks] }));
  await until(world, backupIsOver);
  await settle(world);
  const failed = await last();
  expect(failed).toMatchObject({ type: 4, success: false, disk_total: size });
  expect(failed.disk_processed! + failed.disk_remaining!).toBe(size);
  await world.clock.advance(1000);
  await world.run(domain.backupBegin({ mode: "pull" }));
  await write(world, await guest(world, domain, "vda"), { 0: 9, 1: 9 });
  const { disk_temp_used, disk_temp_total } = await world.run(domain.getJobStats());
  await world.run(domain.abortJob());
  await settle(world);
  const pulled = await last();
  expect(pulled).toMatchObject({ type: 3, success: true, disk_temp_used, disk_temp_total });
  expect(pulled).not.toHaveProperty("disk_total");
});

it("checkpoints the disks that are meant, or says which cannot be", async () => {
  await makeImage(world, "ro");
  await makeImage(world, "rw");
  await makeImage(world, "plain", { format: "raw" });
  const disks = [
    disk("vda", "rw"),
    { ...disk("vdb", "ro"), readonly: true },
    { target: "vdc", format: "raw", source: memory("plain") },
  ];
  const domain = await world.run(world.connection.define({ name: "demo", disks } as never));
  await world.run(domain.create());
  const make =
    (...names: object[]) =>
    () =>
      domain.checkpointCreate({ name: "one", disks: names } as never);
  const refused = [
    make({ name: "vdz" }),
    make({ name: "vda" }, { name: "/memory/rw" }),
    make({ name: "vdb" }),
    make({ name: "vdc" }),
    make({ name: "vda", bitmap: "other" }),
    make(),
  ];
  for (const call of refused) expect(await refusal(world, call())).toBe("CONFIG_UNSUPPORTED");
  const { QUIESCE, REDEFINE_VALIDATE } = CHECKPOINT_CREATE;
  for (const flags of [QUIESCE, REDEFINE_VALIDATE])
    expect(await refusal(world, domain.checkpointCreate({}, flags))).toBe("INVALID_ARG");
  await world.run(make({ name: "/memory/rw" }, { name: "vdb", checkpoint: "no" })());
  const { disks: made } = await world.run(domain.checkpointGetDesc("one"));
  expect(made.map(({ bitmap }) => bitmap)).toEqual(["one", undefined, undefined]);
  await world.run(world.connection.define({ name: "none", disks: [] }));
  const none = world.connection.domain("none");
  await world.run(none.create());
  expect(await refusal(world, none.checkpointCreate())).toBe("CONFIG_UNSUPPORTED");
});

it("puts a checkpoint on record again as it was told of, also where nothing runs", async () => {
  const domain = await running(world, { vda: ["a"], vdb: ["b"] });
  await world.run(domain.checkpointCreate({ name: "one", disks: [{ name: "vdb" }] }));
  await world.run(domain.checkpointCreate({ name: "two", description: "the second" }));
  const before = [
    await world.run(domain.checkpointGetDesc("one")),
    await world.run(domain.checkpointGetDesc("two", CHECKPOINT_XML.SIZE)),
  ];
  expect(before[1]!.disks.map((one) => one.size)).toEqual([0, 0]);
  const { METADATA_ONLY, CHILDREN } = CHECKPOINT_DELETE;
  await world.run(domain.destroy());
  await world.run(domain.checkpointDelete("one", METADATA_ONLY | CHILDREN));
  const { REDEFINE, REDEFINE_VALIDATE } = CHECKPOINT_CREATE;
  const redefine = (one: object, more = 0) =>
    domain.checkpointCreate(one as never, REDEFINE | more);
  expect(await refusal(world, redefine(before[0]!, REDEFINE_VALIDATE))).toBe("OPERATION_INVALID");
  for (const one of before) await world.run(redefine(one));
  await world.run(domain.create());
  for (const one of before) await world.run(redefine(one, REDEFINE_VALIDATE));
  const [one, two] = await world.run(domain.listAllCheckpoints());
  expect(one).toEqual(before[0]);
  expect(two).toMatchObject({ name: "two", parent: "one", description: "the second" });
});

it("tells how much has been written since a checkpoint, in whichever image it is", async () => {
  const domain = await running(world, { vda: ["a"] });
  const device = await guest(world, domain, "vda");
  await world.run(domain.checkpointCreate({ name: "one" }));
  const size = async (name: string) => {
    const { SIZE, NO_DOMAIN, SECURE } = CHECKPOINT_XML;
    const { disks } = await world.run(domain.checkpointGetDesc(name, SIZE | NO_DOMAIN | SECURE));
    return disks[0]!.size;
  };
  expect(await size("one")).toBe(0);
  await write(world, device, { 2: 9, 3: 9 });
  await world.run(domain.checkpointCreate({ name: "two" }));
  await write(world, device, { 3: 8 });
  const overlay = { disks: [{ name: "vda", source: memory("b") }] };
  await world.run(domain.snapshotCreate(overlay, SNAPSHOT_CREATE.DISK_ONLY));
  await write(world, device, { 3: 7, 5: 7 });
  expect([await size("one"), await size("two")]).toEqual([3 * GRAIN, 2 * GRAIN]);
  const nodes = await world.run(world.client.execute("query-named-block-nodes", { flat: true }));
  const bitmaps = nodes.flatMap((node) => node["dirty-bitmaps"] ?? []).map(({ name }) => name);
  expect(bitmaps.sort()).toEqual(["one", "one", "two", "two"]);
  expect((await world.run(domain.checkpointGetDesc("one"))).disks[0]).not.toHaveProperty("size");
  expect(await refusal(world, domain.checkpointGetDesc("one", 8))).toBe("INVALID_ARG");
  // What cannot be relied on has none.
  const bitmap = { node: "libvirt-2-format", name: "two" };
  await world.run(world.client.execute("block-dirty-bitmap-disable", bitmap));
  expect([await size("one"), await size("two")]).toEqual([3 * GRAIN, undefined]);
});

it("overlays the disks that are meant, or says which cannot be", async () => {
  for (const name of ["ro", "rw"]) await makeImage(world, name);
  const disks = [disk("vda", "rw"), { ...disk("vdb", "ro"), readonly: true }];
  const domain = await world.run(world.connection.define({ name: "demo", disks }));
  await world.run(domain.create());
  const make =
    (...names: object[]) =>
    () =>
      domain.snapshotCreate({ name: "one", disks: names } as never, SNAPSHOT_CREATE.DISK_ONLY);
  const refused = [
    make({ name: "vdz" }),
    make({ name: "vdb" }),
    make({ name: "vda" }, { name: "vda" }),
    make({ name: "vda", source: memory("x") }, { name: "/memory/rw", source: memory("y") }),
  ];
  for (const call of refused) expect(await refusal(world, call())).toBe("CONFIG_UNSUPPORTED");
  expect([...world.stores.keys()]).toEqual(["ro", "rw"]);
  // An empty list is none: all that can be written.
  await world.run(make()());
  expect([...world.stores.keys()]).toEqual(["ro", "rw", "rw.one"]);
  const { disks: now } = await world.run(domain.info());
  expect(now.map(({ chain }) => chain.map(({ path }) => path))).toEqual([
    ["/memory/rw.one", "/memory/rw"],
    ["/memory/ro"],
  ]);
  const only = { name: "only", disks: [{ ...disk("vda", "ro"), readonly: true }] };
  await world.run(domain.destroy());
  const other = await world.run(world.connection.define(only));
  await world.run(other.create());
  const none = other.snapshotCreate({}, SNAPSHOT_CREATE.DISK_ONLY);
  expect(await refusal(world, none)).toBe("CONFIG_UNSUPPORTED");
});

it("leaves alone what has been defined for a disk's next start, whatever becomes of its chain until then", async () => {
  const domain = await running(world, { vda: ["top", "base"], vdb: ["b", "below"] });
  await makeImage(world, "other");
  const disks = [disk("vda", "other"), disk("vdb", "b", "below")];
  await world.run(world.connection.define({ name: "demo", disks }));
  await world.run(domain.snapshotCreate({ name: "one" }, SNAPSHOT_CREATE.DISK_ONLY));
  for (const target of ["vda", "vdb"]) {
    await world.run(domain.blockPull(target));
    await until(world, ended(target));
  }
  await settle(world);
  const chains = ({ disks }: { disks: readonly ImageDefinition[] }) =>
    disks.map((one) => layersOf(one).map(({ source }) => source["name"]));
  expect(chains(await world.run(domain.getDesc()))).toEqual([["top.one"], ["b.one"]]);
  // Of the other disk the same image is defined: its definition follows.
  const defined = [["other"], ["b.one"]];
  expect(chains(await world.run(domain.getDesc(DOMAIN_DESC.INACTIVE)))).toEqual(defined);
  await world.run(domain.destroy());
  await world.run(domain.create());
  expect(chains(await world.run(domain.getDesc()))).toEqual(defined);
});

it("commits the active layer by the disk's name, too, and refuses a copy over what is there", async () => {
  const domain = await running(world, { vda: ["top", "base"] });
  const { COPY, RELATIVE } = BLOCK_REBASE;
  await makeImage(world, "taken");
  const copies = [
    [
      () => domain.blockCopy("vda", { format: "qcow2", source: memory("taken") }),
      "CONFIG_UNSUPPORTED",
    ],
    [() => domain.blockRebase("vda", "/memory/taken", 0, COPY), "CONFIG_UNSUPPORTED"],
    [() => domain.blockRebase("vda", null, 0, COPY), "INVALID_ARG"],
    [() => domain.blockRebase("vda", "/memory/new", 0, COPY | RELATIVE), "ARGUMENT_UNSUPPORTED"],
  ] as const;
  for (const [call, code] of copies) expect(await refusal(world, call())).toBe(code);
  const snapshot = { disks: [{ name: "vda", source: memory("taken") }] };
  const onto = domain.snapshotCreate(snapshot, SNAPSHOT_CREATE.DISK_ONLY);
  expect(await refusal(world, onto)).toBe("CONFIG_UNSUPPORTED");
  const backup = { disks: [{ name: "vda", target: memory("taken") }] };
  expect(await refusal(world, domain.backupBegin(backup))).toBe("INVALID_ARG");
  const reused = domain.backupBegin(backup, null, BACKUP_BEGIN.REUSE_EXTERNAL);
  await world.run(reused);
  await until(world, backupIsOver);
  await settle(world);
  expect(await refusal(world, domain.blockCommit("vda", null, "vda"))).toBe("INVALID_ARG");
  await world.run(domain.blockCommit("vda", null, "vda", 0, BLOCK_COMMIT.ACTIVE));
  await until(world, isReady("vda"));
  expect(told(world, "vda")).toEqual([
    [5, 0],
    [4, 3],
  ]);
});
