/**
 * Every block job, on the chain of qcow2 files under one export, while guests are at it. The chain
 * grows by snapshots and shrinks by the jobs:
 *
 *     export ──▶ [n5] ──▶ [n4] ──▶ [n1]        chain, the active layer first
 *
 * What a job copied is judged when its nodes are closed: by the real qemu-img, and by the model.
 */

import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { MiB } from "../../../../src/base/bytes.ts";
import { SystemClock, sleep } from "../../../../src/base/clock.ts";
import type { Client, JobOutcome } from "../../../../src/engine/client.ts";
import type { Dice } from "../../../model/dice.ts";
import { must } from "../rig.ts";
import type { Capture, DiskModel } from "./disk-model.ts";

interface Layer {
  readonly node: string;
  readonly file: string;
}

/** What images are made with. */
const IMAGE_OPTIONS = [
  "compat=1.1",
  "cluster_size=4k",
  "cluster_size=1M",
  "extended_l2=on,cluster_size=128k",
  "refcount_bits=64",
  "lazy_refcounts=on",
];

/** A mirror that does not get ready is helped: first by speed, then by making guests wait for it. */
const HELP_AFTER_MS = 2000;
/** Longer than any of these jobs takes on a machine that is busy with other things. */
const STUCK_AFTER_MS = 120_000;

export type Step = (jobs: Jobs) => Promise<void>;

export class Jobs {
  readonly client: Client;
  /** Steps that were taken, with the number of times. */
  readonly done = new Map<string, number>();
  readonly #folder: string;
  readonly #model: DiskModel;
  readonly #dice: Dice;
  readonly #clock = new SystemClock();
  readonly #chain: Layer[] = [];
  #names = 0;
  /** A job has begun. */
  #onBegun: () => void = () => {};

  constructor(client: Client, folder: string, model: DiskModel, dice: Dice) {
    this.client = client;
    this.#folder = folder;
    this.#model = model;
    this.#dice = dice;
  }

  get chain(): readonly Layer[] {
    return this.#chain;
  }

  /** The first layer, opened. */
  async open(): Promise<Layer> {
    const layer = await this.#image();
    await this.#add(layer);
    this.#chain.push(layer);
    return layer;
  }

  /** A snapshot: a new layer on top. */
  async grow(): Promise<void> {
    const top = this.#chain[0]!;
    const layer = await this.#image(top);
    await this.#add(layer);
    await this.client.execute("blockdev-snapshot", { node: top.node, overlay: layer.node });
    this.#chain.unshift(layer);
    this.#count("blockdev-snapshot");
  }

  /** Pulls all that is below into the active layer, or a part of it. */
  async stream(): Promise<void> {
    await this.#atLeast(3);
    const base = this.#dice.oneIn(2) ? this.#chain.length : 2;
    const below = this.#chain[base];
    const id = this.#id("stream");
    await this.#run(id, () =>
      this.client.execute("block-stream", {
        "job-id": id,
        device: this.#chain[0]!.node,
        speed: this.#speed(),
        ...(below && { "base-node": below.node }),
      }),
    );
    await this.#drop(this.#chain.splice(1, base - 1));
    this.#count(below ? "block-stream to a base" : "block-stream of all");
  }

  /** Pulls everything into a layer in the middle. */
  async streamBelow(): Promise<void> {
    await this.#atLeast(4);
    const id = this.#id("stream");
    await this.#run(id, () =>
      this.client.execute("block-stream", {
        "job-id": id,
        device: this.#chain[2]!.node,
        speed: this.#speed(),
      }),
    );
    await this.#drop(this.#chain.splice(3));
    this.#count("block-stream below the active layer");
  }

  /** A layer below the active one goes into the one below it. */
  async commit(): Promise<void> {
    await this.#atLeast(3);
    const [top, base] = this.#dice.oneIn(2) ? [1, this.#chain.length - 1] : [1, 2];
    const id = this.#id("commit");
    await this.#run(id, () =>
      this.client.execute("block-commit", {
        "job-id": id,
        device: this.#chain[0]!.node,
        "top-node": this.#chain[top]!.node,
        "base-node": this.#chain[base]!.node,
        speed: this.#speed(),
      }),
    );
    await this.#drop(this.#chain.splice(top, base - top));
    this.#count("block-commit below the active layer");
  }

  async activeCommit(): Promise<void> {
    await this.#atLeast(2);
    const base = this.#dice.oneIn(2) ? 1 : this.#chain.length - 1;
    const id = this.#id("active");
    await this.#run(
      id,
      () =>
        this.client.execute("block-commit", {
          "job-id": id,
          device: this.#chain[0]!.node,
          "base-node": this.#chain[base]!.node,
          speed: this.#speed(),
        }),
      () => this.#complete(id, false),
    );
    await this.#drop(this.#chain.splice(0, base));
    this.#count("block-commit of the active layer");
  }

  /** The guests go on with the copy. */
  async mirrorAndPivot(copyMode: "background" | "write-blocking"): Promise<void> {
    const target = await this.#startedMirror(copyMode, (id) => this.#complete(id, true));
    await this.#drop(this.#chain.splice(0, this.#chain.length, target));
    this.#count(`blockdev-mirror, ${copyMode}, with pivot`);
  }

  /** The copy is what the disk was when the job ended. */
  async mirrorAndStay(copyMode: "background" | "write-blocking"): Promise<void> {
    let capture: Capture | undefined;
    const target = await this.#startedMirror(copyMode, async (id) => {
      await this.#ready(id, true);
      capture = this.#model.capture();
      await this.client.execute("block-job-cancel", { device: id });
    });
    await this.#judge(target, capture!.end());
    this.#count(`blockdev-mirror, ${copyMode}, without pivot`);
  }

  /** The copy is what the disk was when the job was started. */
  async backup(): Promise<void> {
    const target = await this.#image();
    await this.#add(target);
    const id = this.#id("backup");
    let capture: Capture | undefined;
    await this.#run(id, async () => {
      capture = this.#model.capture();
      await this.client.execute("blockdev-backup", {
        "job-id": id,
        device: this.#chain[0]!.node,
        target: target.node,
        sync: "full",
        speed: this.#speed(),
      });
      capture.end();
    });
    await this.#judge(target, capture!);
    this.#count("blockdev-backup");
  }

  /** Two at the same time; the other one's job begins when the one's has begun. */
  async together(one: Step, other: Step): Promise<void> {
    await this.#atLeast(4);
    const begun = new Promise<void>((resolve) => {
      this.#onBegun = resolve;
    });
    const first = one(this);
    await Promise.race([begun, first]);
    const results = await Promise.allSettled([first, other(this)]);
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }

  /** All nodes are closed: what is on disk now? @param disk what the export read as at the end */
  async judgeFiles(disk: string): Promise<void> {
    for (const { file } of this.#chain) await must("qemu-img", "check", "-f", "qcow2", file);
    await must("qemu-img", "compare", "-f", "qcow2", "-F", "raw", this.#chain[0]!.file, disk);
  }

  async #startedMirror(
    copyMode: "background" | "write-blocking",
    end: (id: string) => Promise<void>,
  ): Promise<Layer> {
    const target = await this.#image();
    await this.#add(target);
    const id = this.#id("mirror");
    await this.#run(
      id,
      () =>
        this.client.execute("blockdev-mirror", {
          "job-id": id,
          device: this.#chain[0]!.node,
          target: target.node,
          sync: "full",
          "copy-mode": copyMode,
          speed: this.#speed(),
          ...(this.#dice.oneIn(2) && { granularity: 4096 << this.#dice.below(5) }),
        }),
      () => end(id),
    );
    return target;
  }

  /** Starts a job, does what it needs on its way, and waits until it is gone. */
  async #run(id: string, start: () => Promise<unknown>, underway = async () => {}): Promise<void> {
    const stuck = new AbortController();
    const timer = this.#clock.setTimer(STUCK_AFTER_MS, () => stuck.abort());
    const started = start();
    const ended = this.client.waitForJob(id, "null", stuck.signal);
    ended.catch(() => {});
    try {
      await started;
      this.#onBegun();
      await underway();
      const { error } = await ended;
      if (error !== undefined) throw new Error(`Job ${id} has failed: ${error}`);
    } finally {
      timer.cancel();
    }
  }

  async #complete(id: string, isMirror: boolean): Promise<void> {
    await this.#ready(id, isMirror);
    await this.client.execute("job-complete", { id });
  }

  async #ready(id: string, isMirror: boolean): Promise<void> {
    const ready: Promise<JobOutcome> = this.client.waitForJob(id, "ready");
    let isReady = false;
    ready.then(
      () => {
        isReady = true;
      },
      () => {},
    );
    const help = [
      () => this.client.execute("block-job-set-speed", { device: id, speed: 0 }),
      () => {
        const change = { id, type: "mirror", "copy-mode": "write-blocking" } as const;
        return isMirror ? this.client.execute("block-job-change", change) : null;
      },
    ];
    for (const helped of help) {
      await Promise.race([ready, sleep(this.#clock, HELP_AFTER_MS)]);
      if (!isReady) await helped();
    }
    await ready;
  }

  /** Closes a copy, and looks at it. */
  async #judge(copy: Layer, expected: Capture): Promise<void> {
    await this.client.execute("blockdev-del", { "node-name": copy.node });
    const raw = `${copy.file}.raw`;
    await must("qemu-img", "check", "-f", "qcow2", copy.file);
    await must("qemu-img", "convert", "-f", "qcow2", "-O", "raw", copy.file, raw);
    const problem = expected.problem(readFileSync(raw));
    if (problem !== null) throw new Error(`The copy in ${copy.node}: ${problem}`);
    rmSync(raw);
    rmSync(copy.file);
  }

  /** Closes layers that are of no use any more. Above each other, the upper ones first. */
  async #drop(layers: readonly Layer[]): Promise<void> {
    for (const { node } of layers) await this.client.execute("blockdev-del", { "node-name": node });
    for (const { file } of layers) {
      await must("qemu-img", "check", "-f", "qcow2", file);
      rmSync(file);
    }
  }

  async #atLeast(layers: number): Promise<void> {
    while (this.#chain.length < layers) await this.grow();
  }

  async #image(backing?: Layer): Promise<Layer> {
    const node = `n${this.#names++}`;
    const file = join(this.#folder, `${node}.qcow2`);
    const options = this.#dice.pick(IMAGE_OPTIONS);
    const below = backing ? ["-b", backing.file, "-F", "qcow2"] : [];
    await must(
      "qemu-img",
      ...["create", "-q", "-f", "qcow2", "-o", options, ...below, file, `${this.#model.size}`],
    );
    return { node, file };
  }

  async #add({ node, file }: Layer): Promise<void> {
    await this.client.execute("blockdev-add", {
      driver: "qcow2",
      "node-name": node,
      discard: "unmap",
      backing: null,
      file: { driver: "file", filename: file, discard: "unmap" },
    });
  }

  #id(kind: string): string {
    return `${kind}${this.#names++}`;
  }

  #speed(): number {
    return this.#dice.pick([0, 4 * MiB, 16 * MiB]);
  }

  #count(step: string): void {
    this.done.set(step, (this.done.get(step) ?? 0) + 1);
  }
}
