/** Jobs that have ended, whichever tab had the disks then: kept until somebody dismisses them. */

import type { SharedApi } from "../src/domain/client.ts";
import type { ReturnOf } from "../src/qmp/commands/index.ts";
import { isOwnWork } from "./fold.ts";

export type EndedJob = ReturnOf<"x-query-job-history">[number];

/** The newest first, without what is part of other actions. */
export async function queryHistory(
  client: SharedApi,
  isShared: boolean,
): Promise<readonly EndedJob[]> {
  if (!isShared) return [];
  const all = await client.execute("x-query-job-history");
  return all.filter(({ id }) => !isOwnWork(id));
}

/** @param id undefined: all */
export async function dismissHistory(client: SharedApi, id: string | undefined): Promise<void> {
  await client.execute("x-job-history-dismiss", id === undefined ? {} : { id });
}
