/**
 * What QMP has no command for: taking an image's file away. libvirt does that by itself; here the host
 * does it, who knows the stores.
 */

import type { Client } from "../engine/client.ts";
import { DomainError } from "./errors.ts";
import { describeSource, type Source } from "./source.ts";

export interface ImageFiles {
  /** Could remove() do it? */
  canRemove(source: Source): boolean;
  /** Harmless if there is no such file. @throws DomainError, QmpError */
  remove(source: Source): Promise<void>;
}

/** In a page or its worker: what is in OPFS. */
export function clientFiles(client: Pick<Client, "removeFile" | "listFiles">): ImageFiles {
  const canRemove = ({ driver }: Source) => driver === "opfs";
  return {
    canRemove,
    async remove(source) {
      const { filename } = source as { filename?: unknown };
      if (!canRemove(source) || typeof filename !== "string") {
        throw new DomainError("NO_SUPPORT", `'${describeSource(source)}' cannot be removed here`);
      }
      const there = await client.listFiles();
      if (there.some((file) => file.filename === filename)) await client.removeFile(filename);
    },
  };
}
