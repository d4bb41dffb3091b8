/** Image files on Node: those of the `file` driver. Not for pages, which have no such files. */

import { BlockError } from "../base/errors.ts";
import type { Client } from "../engine/client.ts";
import { removeFile } from "../engine/node-remove.ts";
import { DomainError } from "./errors.ts";
import type { ImageFiles } from "./image-files.ts";
import { describeSource, type Source } from "./source.ts";

/** @param qmp of the engine, which says what is open */
export function nodeFiles(qmp: Pick<Client, "execute">): ImageFiles {
  const canRemove = ({ driver, filename }: Source) =>
    driver === "file" && typeof filename === "string";
  return {
    canRemove,
    async remove(source) {
      if (!canRemove(source)) {
        throw new DomainError("NO_SUPPORT", `'${describeSource(source)}' cannot be removed here`);
      }
      const nodes = await qmp.execute("query-named-block-nodes", { flat: true });
      const files = nodes.filter(({ drv }) => drv === "file");
      try {
        await removeFile(
          source["filename"] as string,
          files.map(({ image }) => image.filename),
        );
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        throw new DomainError("OPERATION_FAILED", error.message, error);
      }
    },
  };
}
