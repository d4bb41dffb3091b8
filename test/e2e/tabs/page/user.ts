/** Whoever sits before a tab: asks for anything that domains can do, at any moment. */

import type { Random } from "../../../../src/base/random.ts";
import { type Domain, DomainError, flags } from "../../../../src/domain/client.ts";
import { SPEED } from "../plan.ts";

/** What a user hears who asks for what is not possible now, or whose owner was lost. */
const USUAL: readonly string[] = [
  "ARGUMENT_UNSUPPORTED",
  "BLOCK_COPY_ACTIVE",
  "CONFIG_UNSUPPORTED",
  "INVALID_ARG",
  "OPERATION_FAILED",
  "OPERATION_INVALID",
  "OPERATION_TIMEOUT",
  "OPERATION_UNSUPPORTED",
];

const DISK = "vda";

export class User {
  readonly #domain: Domain;
  readonly #random: Random;
  /** Of what this one makes: names that nobody else has. */
  readonly #name: string;
  #made = 0;

  constructor(domain: Domain, random: Random, name: string) {
    this.#domain = domain;
    this.#random = random;
    this.#name = name;
  }

  /** @returns which call, and the error's code, or "done" */
  async act(): Promise<string> {
    const verbs = this.#verbs();
    const [name, run] = verbs[this.#random.below(verbs.length)]!;
    try {
      await run();
      return `${name} done`;
    } catch (error) {
      if (!(error instanceof DomainError) || !USUAL.includes(error.code)) throw error;
      return `${name} ${error.code}`;
    }
  }

  #verbs(): readonly (readonly [string, () => Promise<unknown>])[] {
    const domain = this.#domain;
    const { ACTIVE, SHALLOW, BANDWIDTH_BYTES } = flags.BLOCK_COMMIT;
    const { ASYNC, PIVOT } = flags.BLOCK_JOB_ABORT;
    const bytes = flags.BLOCK_PULL.BANDWIDTH_BYTES;
    const image = () => ({ driver: "opfs", filename: `image-${this.#name}-${++this.#made}` });
    const copy = () => ({ format: "qcow2", source: image() }) as const;
    return [
      ["pull", () => domain.blockPull(DISK, SPEED, bytes)],
      ["commit", () => domain.blockCommit(DISK, null, `${DISK}[1]`, SPEED, BANDWIDTH_BYTES)],
      [
        "active commit",
        () => domain.blockCommit(DISK, null, null, SPEED, ACTIVE | SHALLOW | BANDWIDTH_BYTES),
      ],
      ["copy", () => domain.blockCopy(DISK, copy(), { bandwidth: SPEED })],
      ["snapshot", () => this.#snapshot(image())],
      ["snapshot", () => this.#snapshot(image())],
      ["backup", () => this.#backup(image())],
      ["pivot", () => domain.blockJobAbort(DISK, PIVOT)],
      ["pivot", () => domain.blockJobAbort(DISK, PIVOT | ASYNC)],
      ["abort", () => domain.blockJobAbort(DISK, ASYNC)],
      ["speed", () => domain.blockJobSetSpeed(DISK, 0)],
      ["speed", () => domain.blockJobSetSpeed(DISK, 0)],
      ["info", () => domain.getBlockJobInfo(DISK)],
    ];
  }

  #snapshot(source: object): Promise<void> {
    const disks = [{ name: DISK, format: "qcow2", source: source as never } as const];
    return this.#domain.snapshotCreate(
      { name: `s-${this.#name}-${this.#made}`, disks },
      flags.SNAPSHOT_CREATE.DISK_ONLY,
    );
  }

  #backup(target: object): Promise<void> {
    const disks = [{ name: DISK, format: "qcow2", target: target as never } as const];
    return this.#domain.backupBegin({ disks }, { name: `c-${this.#name}-${this.#made}` });
  }
}

/** Every job comes to its end: a good one where there is one. */
export async function settle(domain: Domain): Promise<void> {
  for (;;) {
    const jobs = await domain.listBlockJobs();
    if (jobs.length === 0) return;
    for (const { kind, state } of jobs) {
      try {
        if (state === "ready") await domain.blockJobAbort(DISK, flags.BLOCK_JOB_ABORT.PIVOT);
        else if (kind !== "backup") await domain.blockJobSetSpeed(DISK, 0);
      } catch (error) {
        if (!(error instanceof DomainError) || !USUAL.includes(error.code)) throw error;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
