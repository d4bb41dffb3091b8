/** `snapshot`: lists the disk states inside an image, takes one, goes back to one, or deletes one. */

import { BlockError } from "../../base/errors.ts";
import type { BlockBackend } from "../../block/backend.ts";
import {
  applySnapshot,
  createSnapshot,
  findTag,
  snapshotHome,
} from "../../blockjob/internal-snapshot.ts";
import {
  type Arguments,
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  type ImgCommand,
  OBJECT,
  QUIET,
} from "../command.ts";
import { optionsOf } from "../image-name.ts";
import { notOpened, openImage } from "../open.ts";
import { peek } from "../peek.ts";
import type { Session } from "../session.ts";
import { snapshotTable } from "../snapshot-list.ts";

const ACTIONS = ["list", "create", "apply", "delete"] as const;

export const snapshot: ImgCommand = {
  name: "snapshot",
  summary: "Lists the snapshots inside an image, or changes them",
  operands: "FILENAME",
  options: [
    QUIET,
    FORMAT,
    IMAGE_OPTS,
    FORCE_SHARE,
    OBJECT,
    { name: "list", short: "l", help: "lists them, which is the default" },
    { name: "create", short: "c", value: "NAME", help: "takes one" },
    { name: "apply", short: "a", value: "NAME", help: "makes the disk what it was" },
    { name: "delete", short: "d", value: "NAME", help: "deletes one" },
  ],
  run,
};

async function run(session: Session, args: Arguments): Promise<number> {
  const given = args.given.filter(({ name }) => ACTIONS.some((action) => action === name));
  if (given.length > 1) {
    throw new BlockError(
      "EINVAL",
      "Only one of --list, --create, --apply and --delete can be done",
    );
  }
  const image = args.theImage();
  const { name: action, value: tag } = given[0] ?? { name: "list", value: "" };
  if (action === "list") {
    await session.print(snapshotTable(await listOf(session, args)));
    return 0;
  }
  if (args.has("force-share")) {
    throw new BlockError("EINVAL", "Option '--force-share' is only for reading");
  }
  // What the snapshots hold is clusters of this image: nothing shows through from a backing file.
  const backend = await openImage(session, image, { writable: true, noBacking: true });
  try {
    await session.graph.drained([backend.node], () => act(session, backend, action, tag));
  } catch (error) {
    throw error instanceof BlockError
      ? error.prepend(`Could not ${action} snapshot '${tag}'`)
      : error;
  }
  return 0;
}

async function listOf(session: Session, args: Arguments) {
  const image = args.theImage();
  try {
    return (await peek(session, await optionsOf(session, image))).snapshots;
  } catch (error) {
    throw notOpened(error, image.name);
  }
}

/** As qemu-img, which deletes by name, and goes back by id or name. */
async function act(
  session: Session,
  { node }: BlockBackend,
  action: string,
  tag: string,
): Promise<void> {
  const { graph, host } = session;
  const home = snapshotHome(node);
  if (action === "create") {
    // qemu-img says nought, and not that nobody has counted: it shows in lists.
    await createSnapshot(home, tag, host.world.clock, { icount: 0 });
    return;
  }
  const byId = action === "apply" ? home.store.list().find(({ id }) => id === tag) : undefined;
  const found = byId ?? findTag(home, tag);
  if (!found) throw new BlockError("ENOENT", "There is no such snapshot");
  if (action === "delete") await home.store.delete(found.id);
  else await applySnapshot(graph, home, found);
}
