/** transaction: all or nothing, in which order, and jobs that end together. */

import { UNWRITTEN_AT_THE_END } from "../differences.ts";
import { area, script } from "../script.ts";
import type { Args, Talk } from "../talk.ts";
import { CRAWL, disk, failsSecondWrite, faulty, KiB, ONE_BY_ONE, pair } from "./disks.ts";

export const transaction = area("transaction", [
  script("bitmaps are added, changed and removed, all or none", async (t) => {
    await disk(t);
    for (const name of ["a", "b", "c"]) await t.qmp("block-dirty-bitmap-add", on(name));
    const actions = [
      action("block-dirty-bitmap-add", on("d")),
      action("block-dirty-bitmap-disable", on("a")),
      action("block-dirty-bitmap-clear", on("b")),
      action("block-dirty-bitmap-remove", on("c")),
      action("block-dirty-bitmap-merge", { node: "top", target: "d", bitmaps: ["a", "b"] }),
      action("block-dirty-bitmap-enable", on("a")),
    ];
    await run(t, [...actions, action("abort")]);
    await t.nodes();
    await run(t, actions);
    await t.nodes();
  }),
  ...["add", "clear", "disable", "enable", "remove", "merge"].map((verb) =>
    script(`of a bitmap that is written, ${verb} is taken back`, async (t) => {
      await recorded(t);
      const name = verb === "add" ? "new" : verb === "enable" ? "off" : "b";
      const args = verb === "merge" ? { node: "top", target: "off", bitmaps: ["b"] } : on(name);
      const change = action(`block-dirty-bitmap-${verb}`, args);
      await run(t, [change, action("abort")]);
      await t.nodes();
      for (const one of ["b", "off"]) await t.qmp("x-debug-block-dirty-bitmap-sha256", on(one));
      await run(t, [change]);
      await t.nodes();
      for (const one of ["b", "off"]) await t.qmp("x-debug-block-dirty-bitmap-sha256", on(one));
    }),
  ),
  script("persistent bitmaps, taken back and not", async (t) => {
    await t.image("top.qcow2", { bitmaps: ["kept", "-g 32k gone"] });
    await t.open("top", "top.qcow2");
    const actions = [
      action("block-dirty-bitmap-add", { ...on("new"), persistent: true }),
      action("block-dirty-bitmap-remove", on("gone")),
      action("block-dirty-bitmap-clear", on("kept")),
    ];
    await run(t, [...actions, action("abort")]);
    await t.nodes();
    await run(t, actions);
    await t.nodes();
    await t.qmp("blockdev-del", { "node-name": "top" });
    await t.open("top", "top.qcow2");
    await t.nodes();
  }),
  script("a bitmap that is removed is still there until the end", async (t) => {
    await disk(t);
    await t.qmp("block-dirty-bitmap-add", on("b"));
    const [remove, add] = ["remove", "add"].map((verb) =>
      action(`block-dirty-bitmap-${verb}`, on("b")),
    );
    await run(t, [remove!, add!]);
    await t.nodes();
    await run(t, [remove!, remove!]);
    await run(t, [remove!, action("block-dirty-bitmap-clear", on("b"))]);
    await t.nodes();
    await run(t, [add!]);
  }),
  script("a full backup and new bitmaps at one moment", async (t) => {
    await recorded(t);
    await target(t, "full");
    await run(t, [
      action("block-dirty-bitmap-add", on("new")),
      action("block-dirty-bitmap-clear", on("b")),
      backup("full", { sync: "full" }),
    ]);
    await t.job("full", "null");
    await t.nodes();
  }),
  script("nothing at all", async (t) => {
    await t.qmp("transaction", { actions: [] });
    await t.qmp("transaction", {});
    await t.qmp("transaction", { actions: [{}] });
    await t.qmp("transaction", { actions: [{ type: "nonsense", data: {} }] });
    await t.qmp("transaction", { actions: [{ type: "abort" }] });
    await t.qmp("transaction", { actions: [action("abort")] });
    await t.qmp("transaction", { actions: [{ type: "block-dirty-bitmap-add", data: {} }] });
    await t.qmp("transaction", { actions: [], properties: { "completion-mode": "nonsense" } });
    await t.qmp("transaction", { actions: [], properties: { "completion-mode": "grouped" } });
    await t.qmp("transaction", { actions: [], properties: { nonsense: 1 } });
  }),
  script("a snapshot, taken back and not", async (t) => {
    await disk(t);
    await t.image("overlay.qcow2");
    await t.open("overlay", "overlay.qcow2", { backing: null });
    const snapshot = action("blockdev-snapshot", { node: "top", overlay: "overlay" });
    await run(t, [snapshot, action("abort")]);
    await t.nodes();
    await run(t, [action("block-dirty-bitmap-add", on("b")), snapshot]);
    await t.nodes();
  }),
  script("a bitmap of an overlay that takes its place after it, taken back and not", async (t) => {
    await disk(t);
    await t.image("overlay.qcow2");
    await t.open("overlay", "overlay.qcow2", { backing: null });
    const add = action("block-dirty-bitmap-add", { node: "overlay", name: "b", persistent: true });
    const snapshot = action("blockdev-snapshot", { node: "top", overlay: "overlay" });
    await run(t, [add, snapshot, action("abort")]);
    await t.nodes();
    await run(t, [add, snapshot]);
    await t.nodes();
  }),
  script("two snapshots, of which the second cannot be", async (t) => {
    await disk(t);
    await t.image("overlay.qcow2");
    await t.image("other.qcow2");
    await t.open("overlay", "overlay.qcow2", { backing: null });
    await t.open("other", "other.qcow2");
    await run(t, [
      action("blockdev-snapshot", { node: "top", overlay: "overlay" }),
      action("blockdev-snapshot", { node: "other", overlay: "nope" }),
    ]);
    await run(t, [
      action("blockdev-snapshot", { node: "top", overlay: "overlay" }),
      action("blockdev-snapshot", { node: "other", overlay: "overlay" }),
    ]);
    await t.nodes();
  }),
  script("an overlay that is another's backing file", async (t) => {
    await disk(t);
    await t.image("overlay.qcow2");
    await t.image("other.qcow2");
    await t.open("overlay", "overlay.qcow2", { backing: null });
    await t.open("other", "other.qcow2");
    await t.qmp("blockdev-snapshot", { node: "top", overlay: "overlay" });
    t.parting("those who use it would see other bytes");
    await run(t, [action("blockdev-snapshot", { node: "other", overlay: "top" })]);
  }),
  script("a snapshot with blockdev-snapshot-sync, taken back and not", async (t) => {
    await disk(t);
    const snapshot = (file: string) =>
      action("blockdev-snapshot-sync", {
        "node-name": "top",
        "snapshot-file": file,
        "snapshot-node-name": "overlay",
      });
    await run(t, [snapshot("overlay.qcow2"), action("abort")]);
    await t.nodes();
    await run(t, [snapshot("second.qcow2")]);
    await t.nodes();
  }),
  script("an internal snapshot, taken back and not", async (t) => {
    await disk(t);
    const snapshot = action("blockdev-snapshot-internal-sync", { device: "top", name: "s1" });
    await run(t, [snapshot, action("abort")]);
    await run(t, [snapshot]);
    await run(t, [snapshot]);
  }),
  script("backups that are taken back", async (t) => {
    await disk(t);
    await target(t, "one");
    await target(t, "two");
    await run(t, [
      backup("one", { sync: "full" }),
      backup("two", { sync: "full" }),
      action("block-dirty-bitmap-clear", on("nope")),
    ]);
    await t.qmp("query-jobs");
    await t.nodes();
    await run(t, [backup("one", { sync: "full" }), backup("two", { sync: "incremental" })]);
    await run(t, [backup("one", { sync: "full" }), backup("one", { sync: "full" })]);
    await t.qmp("query-jobs");
  }),
  script("one backup of a group that is taken back", async (t) => {
    await disk(t);
    await target(t, "one");
    await group(t, [backup("one", { sync: "full" }), backup("nope", { sync: "full" })]);
    await t.qmp("query-jobs");
  }),
  script("two backups with one bitmap", async (t) => {
    await recorded(t);
    await target(t, "one");
    await target(t, "two");
    const by = { sync: "bitmap", bitmap: "b", "bitmap-mode": "on-success" };
    await run(t, [backup("one", by), backup("two", by)]);
    await t.nodes();
  }),
  script(
    "jobs of a group are backups",
    async (t) => {
      await disk(t);
      await target(t, "one");
      await t.image("overlay.qcow2");
      await t.open("overlay", "overlay.qcow2", { backing: null });
      const full = backup("one", { sync: "full" });
      await group(t, [full, action("block-dirty-bitmap-add", on("b"))]);
      await group(t, [full, action("blockdev-snapshot", { node: "top", overlay: "overlay" })]);
      await group(t, [full, action("abort")]);
      await group(t, [action("block-dirty-bitmap-add", on("b"))]);
      await t.qmp("query-jobs");
      await t.nodes();
    },
    { since: { version: "8.1.0", what: "looking at a group's actions before the first is done" } },
  ),
  script("two backups, each by itself", async (t) => {
    await twoDisks(t);
    const held = { sync: "full", "auto-finalize": false };
    await run(t, [backup("a", held, "a"), backup("b", held, "b")]);
    await t.events(["BLOCK_JOB_PENDING", { id: "a" }], ["BLOCK_JOB_PENDING", { id: "b" }]);
    await t.qmp("job-finalize", { id: "a" });
    await t.job("a", "null");
    await t.qmp("query-jobs");
    await t.qmp("job-cancel", { id: "b" });
    await t.job("b", "null");
  }),
  script("two backups of a group end together", async (t) => {
    await twoDisks(t);
    const held = { sync: "full", "auto-finalize": false };
    await group(t, [backup("a", held, "a"), backup("b", held, "b")]);
    await t.events(["BLOCK_JOB_PENDING", { id: "a" }], ["BLOCK_JOB_PENDING", { id: "b" }]);
    await t.qmp("query-jobs");
    await t.qmp("job-finalize", { id: "b" });
    await t.job("b", "null");
    await t.job("a", "null");
  }),
  script("one of a group is finalized by hand, the other on its own", async (t) => {
    await twoDisks(t);
    await group(t, [
      backup("a", { sync: "full", "auto-finalize": false }, "a"),
      backup("b", { sync: "full" }, "b"),
    ]);
    await t.events(["BLOCK_JOB_PENDING", { id: "a" }]);
    await t.qmp("query-jobs");
    await t.qmp("job-finalize", { id: "b" });
    await t.job("b", "null");
    await t.job("a", "null");
  }),
  script("one of a group is dismissed by hand", async (t) => {
    await twoDisks(t);
    await group(t, [
      backup("a", { sync: "full", "auto-dismiss": false, "auto-finalize": false }, "a"),
      backup("b", { sync: "full" }, "b"),
    ]);
    await t.events(["BLOCK_JOB_PENDING", { id: "a" }]);
    await t.qmp("job-finalize", { id: "a" });
    await t.job("a", "concluded");
    await t.qmp("query-jobs");
    await t.qmp("job-dismiss", { id: "a" });
    await t.job("a", "null");
  }),
  script("one that waits for its group is cancelled", async (t) => {
    await twoDisks(t);
    await group(t, [
      backup("a", { sync: "full" }, "a"),
      backup("b", { sync: "full", speed: CRAWL, "x-perf": ONE_BY_ONE }, "b"),
    ]);
    await t.jobs(["a", "waiting"]);
    await t.progress("b", 64 * KiB);
    await t.qmp("job-finalize", { id: "a" });
    await t.qmp("job-complete", { id: "a" });
    await t.qmp("job-pause", { id: "a" });
    await t.qmp("job-cancel", { id: "a" });
    await ends(t);
  }),
  script("the one that the others wait for is cancelled", async (t) => {
    await twoDisks(t);
    await group(t, [
      backup("a", { sync: "full" }, "a"),
      backup("b", { sync: "full", speed: CRAWL, "x-perf": ONE_BY_ONE }, "b"),
    ]);
    await t.jobs(["a", "waiting"]);
    await t.progress("b", 64 * KiB);
    await t.qmp("block-job-cancel", { device: "b" });
    await ends(t);
  }),
  script("one of a group is cancelled while it is pending", async (t) => {
    await twoDisks(t);
    const held = { sync: "full", "auto-finalize": false, "auto-dismiss": false };
    await group(t, [backup("a", held, "a"), backup("b", held, "b")]);
    await t.events(["BLOCK_JOB_PENDING", { id: "a" }], ["BLOCK_JOB_PENDING", { id: "b" }]);
    await t.qmp("job-cancel", { id: "a" });
    await t.job("a", "concluded");
    await t.qmp("query-jobs");
    for (const id of ["a", "b"]) await t.qmp("job-dismiss", { id });
  }),
  ...(["a", "b"] as const).map((bad) =>
    script(
      `the ${bad === "a" ? "first" : "second"} of a group fails, its bitmap stays`,
      async (t) => {
        await twoDisks(t, bad, failsSecondWrite(`to-${bad}.qcow2`));
        await fill(t);
        const by = { sync: "incremental", bitmap: "b0" };
        const slow = { ...by, speed: CRAWL, "x-perf": ONE_BY_ONE };
        const good = bad === "a" ? "b" : "a";
        await group(t, [
          backup("a", bad === "a" ? slow : by, "a"),
          backup("b", bad === "b" ? slow : by, "b"),
        ]);
        await t.jobs([good, "waiting"]);
        await t.progress(bad, 64 * KiB);
        await t.nodes();
        await t.qmp("block-job-set-speed", { device: bad, speed: 0 });
        await t.jobs(["a", "null"], ["b", "null"]);
        await t.nodes();
      },
    ),
  ),
  script(
    "one that was paused by hand, and the other is cancelled",
    async (t) => {
      await twoDisks(t, "b", faulty("to-b.qcow2", { event: "write_aio" }));
      const full = { sync: "full", speed: CRAWL, "x-perf": ONE_BY_ONE };
      await group(t, [
        backup("a", full, "a"),
        backup("b", { sync: "full", "on-target-error": "stop", "x-perf": ONE_BY_ONE }, "b"),
      ]);
      await t.anyOrder(async () => {
        await t.event("BLOCK_JOB_ERROR");
        await t.status("b", "paused");
        await t.progress("a", 64 * KiB);
      });
      await t.qmp("job-pause", { id: "a" });
      await t.job("a", "paused");
      await t.qmp("query-jobs");
      await t.qmp("job-cancel", { id: "b" });
      await t.jobs(["a", "null"], ["b", "null"]);
    },
    { differences: [UNWRITTEN_AT_THE_END] },
  ),
  script("one of a group stops on an error, and the others wait", async (t) => {
    await twoDisks(t, "b", faulty("to-b.qcow2", { event: "write_aio", once: true }));
    const one = { "max-workers": 1 };
    await group(t, [
      backup("a", { sync: "full" }, "a"),
      backup("b", { sync: "full", "on-target-error": "stop", "x-perf": one }, "b"),
    ]);
    await t.anyOrder(async () => {
      await t.event("BLOCK_JOB_ERROR");
      await t.status("b", "paused");
      await t.status("a", "waiting");
    });
    await t.qmp("job-finalize", { id: "a" });
    await t.qmp("query-block-jobs");
    await t.qmp("job-resume", { id: "b" });
    await t.job("a", "null");
  }),
  script("jobs cannot be added to what a transaction is", async (t) => {
    await pair(t);
    const args = { device: "top", target: "target", sync: "full", "job-id": "m" };
    for (const type of ["blockdev-mirror", "block-commit", "block-stream", "job-cancel"]) {
      await run(t, [action(type, args)]);
    }
  }),
  script("the first mistake is the one that is told", async (t) => {
    await disk(t);
    await run(t, [
      action("block-dirty-bitmap-add", on("ok")),
      action("block-dirty-bitmap-clear", on("first")),
      action("block-dirty-bitmap-clear", on("second")),
    ]);
    await run(t, [
      action("block-dirty-bitmap-clear", on("first")),
      action("block-dirty-bitmap-add", { node: "top" }),
    ]);
    await t.nodes();
  }),
]);

interface Action {
  readonly type: string;
  readonly data: Args;
}

function action(type: string, data: Args = {}): Action {
  return { type, data };
}

/** Arguments for bitmap `name` of disk 'top'. */
function on(name: string): Args {
  return { node: "top", name };
}

/** A backup of 'top', or of another, into the node `to-NAME`; the job's id is the name. */
function backup(name: string, more: Args, device = "top"): Action {
  return action("blockdev-backup", { device, target: `to-${name}`, "job-id": name, ...more });
}

async function run(t: Talk, actions: readonly Action[]): Promise<void> {
  await t.qmp("transaction", { actions });
}

async function group(t: Talk, actions: readonly Action[]): Promise<void> {
  await t.qmp("transaction", { actions, properties: { "completion-mode": "grouped" } });
}

async function target(t: Talk, name: string): Promise<void> {
  await t.image(`to-${name}.qcow2`);
  await t.open(`to-${name}`, `to-${name}.qcow2`);
}

/** Writes into disks 'a' and 'b', so that their bitmaps have something. */
async function fill(t: Talk): Promise<void> {
  await t.image("fill.qcow2", { size: "1M", writes: ["-P 5 256k 512k"] });
  await t.open("fill", "fill.qcow2", { "read-only": true });
  for (const target of ["a", "b"]) {
    const to = { device: "fill", target, sync: "top", "job-id": "fill" };
    await t.qmp("blockdev-backup", to);
    await t.job("fill", "null");
  }
}

/** Disk 'top' with bitmaps: 'b' has recorded some writes, 'off' nothing. */
async function recorded(t: Talk): Promise<void> {
  await t.image("source.qcow2", { writes: ["-P 1 64k 64k", "-P 2 2M 200k"] });
  await t.image("top.qcow2");
  await t.open("source", "source.qcow2", { "read-only": true });
  await t.open("top", "top.qcow2");
  await t.qmp("block-dirty-bitmap-add", on("b"));
  await t.qmp("block-dirty-bitmap-add", { ...on("off"), disabled: true });
  const to = { device: "source", target: "top", sync: "top", "job-id": "fill" };
  await t.qmp("blockdev-backup", to);
  await t.job("fill", "null");
}

/**
 * Disks 'a' and 'b' of 1 MiB, each with a bitmap 'b0', and what they are copied to; one of these cannot
 * be written as it should.
 */
async function twoDisks(t: Talk, bad?: "a" | "b", file: Args = {}): Promise<void> {
  for (const name of ["a", "b"]) {
    await t.image(`${name}.qcow2`, { size: "1M", writes: ["-P 1 0 1M"] });
    await t.image(`to-${name}.qcow2`, { size: "1M" });
    await t.open(name, `${name}.qcow2`);
    await t.qmp("block-dirty-bitmap-add", { node: name, name: "b0" });
    await t.open(`to-${name}`, `to-${name}.qcow2`, name === bad ? { file } : {});
  }
}

/** Two jobs of a group come to their end, the older one last. */
async function ends(t: Talk): Promise<void> {
  await t.job("b", "null");
  await t.job("a", "null");
}
