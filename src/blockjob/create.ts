/**
 * blockdev-create: makes a new, empty image, as a job (QEMU: block/create.c).
 *
 * Nothing can be asked of it but to be dismissed; a cancel gives up waiting, and what was made so
 * far stays where it is.
 */

import * as v from "valibot";
import { check } from "../base/check.ts";
import { assert, BlockError } from "../base/errors.ts";
import type { BackendInit, BlockBackend } from "../block/backend.ts";
import type { BlockDriver, OptionEntries } from "../block/driver.ts";
import type { Graph } from "../block/graph.ts";
import type { BlockNode } from "../block/node.ts";
import { type BlockdevRef, blockdevRef } from "../block/options.ts";
import { Perm } from "../block/permissions.ts";
import { Job } from "../job/job.ts";
import type { BlockJobServices } from "./block-job.ts";
import { checkFileUnused, forgetFormerFile } from "./image-name.ts";

export interface CreateOptions {
  readonly jobId: string;
  /** "driver", for formats "file" (a node's name or its options), and the driver's own members. */
  readonly options: { readonly driver: string; readonly [member: string]: unknown };
}

/**
 * Starts the job and returns it running; it stays concluded until it is dismissed.
 *
 * @throws BlockError EINVAL (unknown driver, options), ENOTSUP (driver cannot create), EEXIST (id)
 */
export function startCreate(services: BlockJobServices, { jobId, options }: CreateOptions): Job {
  const { graph } = services;
  const driver = graph.driver(options.driver);
  const { create } = driver;
  if (!create) {
    throw new BlockError("ENOTSUP", `Driver '${driver.name}' does not support blockdev-create`);
  }
  const { file, own } = checkCreateOptions(driver, options);

  const job = new Job({
    id: jobId,
    clock: services.clock,
    list: services.jobs,
    autoDismiss: false,
    driver: {
      type: "create",
      async run(running) {
        running.progress.setRemaining(1);
        const { world, secrets } = graph;
        const context = { world, secrets, options: own as never, signal: running.signal };
        try {
          if (file === undefined) {
            checkFileUnused(graph, driver, own);
            await create.call(driver, context);
            await forgetFormerFile(graph, driver, own);
          } else await createInto(file, running);
        } finally {
          // Done for good, well or not.
          running.progress.workDone(1);
        }

        async function createInto(into: BlockdevRef, current: Job): Promise<void> {
          const node = await fileNode(graph, into, current.signal);
          const permissions = {
            take: Perm.consistentRead | Perm.write | Perm.resize,
            share: Perm.consistentRead,
          };
          const backend = await openOrClose(graph, node, {
            name: "",
            description: `job '${current.id}'`,
            permissions,
            onDrain: {
              begin: () => current.pause(),
              isQuiet: () => !current.busy || current.completed,
              end: () => current.resume(),
            },
          });
          try {
            assert(create, "checked above");
            await create.call(driver, { ...context, file: backend.edge });
          } finally {
            await graph.closeBackend(backend);
          }
        }
      },
    },
  });
  job.start();
  return job;
}

/** Opened here, it is closed when its last user goes. */
async function fileNode(graph: Graph, file: BlockdevRef, signal: AbortSignal): Promise<BlockNode> {
  if (typeof file === "string") return graph.get(file);
  checkFileUnused(graph, graph.driver(file.driver), file);
  return graph.addForUsers(file, signal);
}

async function openOrClose(
  graph: Graph,
  node: BlockNode,
  init: BackendInit,
): Promise<BlockBackend> {
  try {
    return graph.openBackend(node, init);
  } catch (error) {
    await graph.closeUnused(node);
    throw error;
  }
}

function checkCreateOptions(
  driver: BlockDriver,
  options: CreateOptions["options"],
): { file: BlockdevRef | undefined; own: Record<string, unknown> } {
  const schema = v.strictObject({ driver: v.literal(driver.name), ...createEntries(driver) });
  const checked = check(schema, options, "options") as Record<string, unknown>;
  if (driver.kind !== "format") {
    const { driver: _name, ...own } = checked;
    return { file: undefined, own };
  }
  const { driver: _name, file, ...own } = checked;
  return { file: file as BlockdevRef, own };
}

/**
 * What a driver takes to make an image, besides `driver`; nothing if it makes none.
 *
 * @param ref schema of the node that a format makes its image in
 */
export function createEntries(
  { kind, createOptions }: BlockDriver,
  ref: v.GenericSchema = blockdevRef,
): OptionEntries {
  return { ...(createOptions && kind === "format" && { file: ref }), ...createOptions };
}
