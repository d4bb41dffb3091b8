/**
 * x-blockdev-amend: changes an image's own properties, as a job (QEMU: block/amend.c). Guests wait
 * meanwhile. A cancel ends the making of a key, and interrupts nothing once something is written.
 */

import * as v from "valibot";
import { check } from "../base/check.ts";
import { assert, BlockError } from "../base/errors.ts";
import { readOnlyError } from "../block/request.ts";
import { Job } from "../job/job.ts";
import type { BlockJobServices } from "./block-job.ts";
import { holding } from "./hold.ts";

export interface AmendOptions {
  readonly jobId: string;
  readonly nodeName: string;
  /** "driver", and the driver's own members. */
  readonly options: { readonly driver: string; readonly [member: string]: unknown };
  /** Also what could make the image unreadable. */
  readonly force: boolean;
}

/**
 * Starts the job and returns it running; it stays concluded until it is dismissed.
 *
 * @throws BlockError ENOENT (node), EINVAL (driver unknown or not the node's, options), ENOTSUP (the
 *   driver cannot), EROFS, EEXIST (id)
 */
export function startAmend(services: BlockJobServices, request: AmendOptions): Job {
  const { graph, jobs, clock } = services;
  const { jobId, nodeName, options, force } = request;
  const node = graph.get(nodeName);
  const driver = graph.driver(options.driver);
  if (node.driver !== driver) {
    throw new BlockError(
      "EINVAL",
      `Node '${nodeName}' is of driver '${node.driver.name}', not '${driver.name}'`,
    );
  }
  const entries = driver.amendOptions;
  if (!entries || !node.state.amend) {
    throw new BlockError("ENOTSUP", `Driver '${driver.name}' does not support x-blockdev-amend`);
  }
  if (node.readOnly) throw readOnlyError(node);
  const schema = v.strictObject({ driver: v.literal(driver.name), ...entries });
  const { driver: _name, ...own } = check(schema, options, "options") as Record<string, unknown>;

  const job = new Job({
    id: jobId,
    clock,
    list: jobs,
    autoDismiss: false,
    driver: {
      type: "amend",
      async run({ progress, signal }) {
        progress.setRemaining(1);
        checkThere();
        await holding(graph, [node], `job '${jobId}'`, () =>
          graph.drained([node], async () => {
            // It may have been closed or reopened while that was waited for.
            checkThere();
            if (node.readOnly) throw readOnlyError(node);
            assert(node.state.amend, "a node can be amended as long as it is open");
            await node.state.amend(own, { force, secrets: graph.secrets, signal });
          }),
        );
        progress.workDone(1);
      },
    },
  });
  job.start();
  return job;

  function checkThere(): void {
    if (graph.find(nodeName) === node) return;
    throw new BlockError("ENOENT", `Node '${nodeName}' has been closed`);
  }
}
