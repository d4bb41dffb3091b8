/**
 * docs/job-h.md is complete and right: every declaration of the two headers has a row, and every
 * counterpart and every test that it names is there.
 */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

const ROOT = join(import.meta.dirname, "..");
const DOCUMENT = readFileSync(join(ROOT, "docs/job-h.md"), "utf8");

/** What include/qemu/job.h declares; Struct.field for fields. */
const JOB_H = `
  Job JobDriver JobTxn Job.id Job.driver Job.co Job.auto_finalize Job.auto_dismiss Job.cb
  Job.opaque Job.progress Job.aio_context Job.refcnt Job.status Job.sleep_timer Job.pause_count
  Job.busy Job.paused Job.user_paused Job.cancelled Job.force_cancel Job.deferred_to_main_loop
  Job.ret Job.err Job.on_finalize_cancelled Job.on_finalize_completed Job.on_pending
  Job.on_ready Job.on_idle Job.job_list Job.txn Job.txn_list JobDriver.instance_size
  JobDriver.job_type JobDriver.run JobDriver.pause JobDriver.resume JobDriver.user_resume
  JobDriver.complete JobDriver.prepare JobDriver.commit JobDriver.abort JobDriver.clean
  JobDriver.cancel JobDriver.free JobCreateFlags JOB_DEFAULT JOB_INTERNAL JOB_MANUAL_FINALIZE
  JOB_MANUAL_DISMISS job_mutex JOB_LOCK_GUARD WITH_JOB_LOCK_GUARD job_lock job_unlock
  job_txn_new job_txn_unref job_txn_add_job job_txn_unref_locked job_create job_ref_locked
  job_unref_locked job_start job_early_fail job_transition_to_ready job_set_aio_context
  job_progress_update job_progress_set_remaining job_progress_increase_remaining job_pause_point
  job_yield job_sleep_ns job_enter job_enter_cond_locked job_type job_type_str job_is_internal
  job_is_cancelled job_is_cancelled_locked job_cancel_requested job_is_completed_locked
  job_is_ready job_is_ready_locked job_user_paused_locked job_next job_next_locked
  job_get_locked job_pause job_pause_locked job_resume job_resume_locked job_user_pause_locked
  job_user_resume_locked job_apply_verb_locked job_complete_locked job_cancel_locked
  job_user_cancel_locked job_finalize_locked job_dismiss_locked job_finish_sync_locked
  job_cancel_sync job_cancel_sync_locked job_complete_sync_locked job_cancel_sync_all
`;

/** What include/block/blockjob.h declared in 2018. */
const BLOCKJOB_H = `
  BlockJob BlockJobDriver BlockJobTxn BLOCK_JOB_SLICE_TIME BlockJob.driver BlockJob.blk
  BlockJob.id BlockJob.co BlockJob.cancelled BlockJob.force BlockJob.pause_count
  BlockJob.user_paused BlockJob.busy BlockJob.paused BlockJob.ready
  BlockJob.deferred_to_main_loop BlockJob.job_list BlockJob.iostatus BlockJob.offset
  BlockJob.len BlockJob.speed BlockJob.limit BlockJob.cb BlockJob.blocker BlockJob.nodes
  BlockJob.opaque BlockJob.refcnt BlockJob.completed BlockJob.ret BlockJob.sleep_timer
  BlockJob.status BlockJob.auto_finalize BlockJob.auto_dismiss BlockJob.txn BlockJob.txn_list
  BlockJobCreateFlags BLOCK_JOB_DEFAULT BLOCK_JOB_INTERNAL BLOCK_JOB_MANUAL_FINALIZE
  BLOCK_JOB_MANUAL_DISMISS block_job_next block_job_get block_job_is_internal block_job_add_bdrv
  block_job_remove_all_bdrv block_job_start block_job_ref block_job_unref block_job_set_speed
  block_job_progress_update block_job_progress_set_remaining block_job_query
  block_job_iostatus_reset block_job_cancel block_job_complete block_job_finalize
  block_job_dismiss block_job_user_pause block_job_user_paused block_job_user_resume
  block_job_user_cancel block_job_cancel_sync block_job_cancel_sync_all block_job_complete_sync
  block_job_txn_new block_job_txn_unref block_job_txn_add_job
`;

interface Row {
  readonly name: string;
  readonly here: string;
}

describe.each([
  ["include/qemu/job.h", JOB_H],
  ["include/block/blockjob.h (2018)", BLOCKJOB_H],
])("%s", (header, declared) => {
  const rows = rowsUnder(header);

  it("has every declaration once", () => {
    const names = rows.map(({ name }) => name);
    expect(names.toSorted()).toEqual(declared.trim().split(/\s+/).toSorted());
  });

  it.each(rows)("$name has a counterpart that exists, or a reason", ({ here }) => {
    const counterparts = [...here.matchAll(/`(src\/[^`]+?): ([^`]+)`/g)];
    if (here.startsWith("none: ")) expect(here.length).toBeGreaterThan(30);
    else expect(counterparts.length, here).toBeGreaterThan(0);
    for (const [, path, name] of counterparts) expect(missing(path!, name!)).toBe(null);
  });
});

it("the promises are shown by tests that exist", () => {
  const shown = [...DOCUMENT.matchAll(/`(test\/[^`]+?\.ts): ([^`]+)`/g)];
  expect(shown.length).toBeGreaterThan(20);
  for (const [, path, title] of shown) {
    const text = existsSync(join(ROOT, path!)) ? readFileSync(join(ROOT, path!), "utf8") : "";
    expect(text.includes(title!), `${path}: ${title}`).toBe(true);
  }
});

it("a file, a name and a member that are not there are found", () => {
  expect(missing("src/job/job.ts", "Job.pausePoint")).toBe(null);
  expect(missing("src/job/pause.ts", "PauseGate.#timer")).toBe(null);
  expect(missing("src/job/driver.ts", "JobEvent.finalize-cancelled")).toBe(null);
  expect(missing("src/job/gone.ts", "Job")).toContain("no file");
  expect(missing("src/job/job.ts", "Jo")).toContain("no Jo");
  expect(missing("src/job/job.ts", "Job.pausePoin")).toContain("no member");
  expect(missing("src/job/verbs.ts", "verbs.checkVerb")).toContain("no member");
});

function rowsUnder(header: string): Row[] {
  const section = DOCUMENT.split(/^## /m).find((text) => text.startsWith(`${header}\n`)) ?? "";
  return [...section.matchAll(/^\| `([\w.]+)` \| (.+) \|$/gm)].map(([, name, here]) => ({
    name: name!,
    here: here!,
  }));
}

/** What is not there of "Name" or "Name.member" in a file; null if all is. */
function missing(path: string, name: string): string | null {
  const file = join(ROOT, path);
  if (!existsSync(file)) return `no file ${path}`;
  const text = readFileSync(file, "utf8");
  const [owner, member] = name.split(/\.(.*)/s) as [string, string | undefined];
  const start = text.search(
    new RegExp(
      `^(export )?(abstract )?(class|interface|const|type|function|async function) ${owner}\\b`,
      "m",
    ),
  );
  const asFunction = new RegExp(`^export async function ${owner}\\b`, "m").test(text);
  if (start === -1) return asFunction && member === undefined ? null : `no ${owner} in ${path}`;
  if (member === undefined) return null;
  const rest = text.slice(start);
  const end = rest.search(/^(export )?type /.test(rest) ? /;\n\n/ : /^[}\])]/m);
  const body = end === -1 ? rest : rest.slice(0, end);
  const modifiers = "(?:(?:readonly|static|async|get|set|protected|private|abstract|override) )*";
  const declared = new RegExp(`^ {2}${modifiers}${member}[?!]?\\s*[(:<=;]`, "m").test(body);
  return declared || body.includes(`"${member}"`) ? null : `no member ${member} of ${owner}`;
}
