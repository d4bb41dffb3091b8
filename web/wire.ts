/** The QMP shapes that the page works with, under the page's names. */

import type { ArgumentsOf, ReturnOf } from "../src/qmp/commands/index.ts";
import type { QmpEvent } from "../src/qmp/events.ts";

export type { QmpEvent };

/** An entry of query-named-block-nodes. */
export type NodeInfo = ReturnOf<"query-named-block-nodes">[number];
/** An entry of query-block-jobs. */
export type BlockJobInfo = ReturnOf<"query-block-jobs">[number];
/** An entry of query-jobs. */
export type JobInfo = ReturnOf<"query-jobs">[number];
export type JobStatus = BlockJobInfo["status"];
/** What opens a node. */
export type BlockdevOptions = ArgumentsOf<"blockdev-add">;
/** What makes an image. */
export type CreateOptions = ArgumentsOf<"blockdev-create">["options"];
