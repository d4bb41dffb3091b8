/** What became of everything when the engine was lost the last time, in words, and what can be done about it. */

import type { SharedApi } from "../src/domain/client.ts";
import type { ReturnOf } from "../src/qmp/commands/index.ts";

export type Recovered = ReturnOf<"x-query-recovery">[number];

/** Where no journal is kept there is nothing to tell. */
export async function queryRecovery(
  client: SharedApi,
  isShared: boolean,
): Promise<readonly Recovered[]> {
  return isShared ? client.execute("x-query-recovery") : [];
}

/** The same has become of the same thing. */
export function isSame(a: Recovered, b: Recovered): boolean {
  return a.kind === b.kind && a.name === b.name && a.outcome === b.outcome;
}

/** It may come back: a server is away, a file has to be picked again. */
export function isMissing({ outcome }: Recovered): boolean {
  return outcome === "kept";
}

/** An image without which the page's disk cannot be opened as it was. */
export function missingImage(recovered: readonly Recovered[]): Recovered | undefined {
  return recovered.find(
    (one) => isMissing(one) && one.kind === "node" && one.name.startsWith("libvirt-"),
  );
}

/** That images and devices are there again is what everybody expects: only jobs, and what went wrong, is told. */
export function isWorthTelling({ kind, outcome }: Recovered): boolean {
  return kind === "job" || outcome !== "continued";
}

const STATES: Readonly<Record<Recovered["outcome"], string>> = {
  continued: "",
  ended: " has ended",
  kept: " has not come back yet",
  lost: " is lost",
  broken: " cannot be understood",
};

/** "Job pull-vda: It went on". */
export function describe({ kind, name, outcome, text }: Recovered): string {
  const what = kind === "node" ? "Image" : kind.charAt(0).toUpperCase() + kind.slice(1);
  return `${what} ${name}${STATES[outcome]}: ${text}`;
}

/** Gives up all that is missing: jobs and images of which nobody can say when they come back. */
export async function giveUpMissing(
  client: SharedApi,
  recovered: readonly Recovered[],
): Promise<void> {
  await dismiss(client, recovered.filter(isMissing));
}

export async function dismiss(client: SharedApi, recovered: readonly Recovered[]): Promise<void> {
  for (const { kind, name } of recovered) {
    await client.execute("x-recovery-dismiss", { kind, name });
  }
}
