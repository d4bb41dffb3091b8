/**
 * copy-on-read: what a read finds in the backing files is also written into the node below, so that
 * it is local from then on. A filter is a difference, and this is the whole of it: the copying
 * itself is done by src/block/io.ts, under the lock of the clusters it fills.
 *
 *   device ──▶ [copy-on-read] ──▶ [overlay] ──▶ [template]
 *
 * With `bottom`, only what that node and those above it hold is copied; what shows through from
 * below it is passed on as it is (QEMU: block/copy-on-read.c).
 */

import * as v from "valibot";
import { assert, BlockError } from "../../base/errors.ts";
import type { BlockNode } from "../../block/node.ts";
import type { TypedDriver } from "../../block/option-types.ts";
import { Perm } from "../../block/permissions.ts";
import { backingOf, chainOf, chainStatus, skipFilters } from "../../block/status.ts";

const openOptions = {
  /** Node name of the last layer to copy from. */
  bottom: v.optional(v.string()),
};

export interface CopyOnReadOptions {
  readonly bottom?: string;
}

/** What types are made of: see src/block/option-types.ts. */
interface Types {
  readonly name: "copy-on-read";
  readonly kind: "filter";
  readonly roles: { readonly file: true };
  readonly openOptions: typeof openOptions;
}

export const copyOnRead: TypedDriver<Types, CopyOnReadOptions> = {
  name: "copy-on-read",
  kind: "filter",
  roles: { file: true },
  openOptions,

  /** Copies are writes that change nothing; all else is as the users of the filter want it. */
  childPermissions(_role, above, readOnly) {
    return {
      take: above.take | (readOnly ? Perm.none : Perm.writeUnchanged),
      share: above.share | Perm.consistentRead | Perm.writeUnchanged,
    };
  },

  async open({ options, children, nodeName }) {
    const { file } = children;
    assert(file, "blockdev-add gives copy-on-read a file");
    const base = () => (options.bottom === undefined ? null : below(file.node, options.bottom));
    base(); // A wrong name is an error now, not at the first read.

    return {
      limits: file.node.state.limits,
      async pread(buf, offset, request) {
        for (let done = 0; done < buf.length; ) {
          const at = offset + done;
          const run = await chainStatus(file.node, base(), at, buf.length - done);
          const piece = buf.subarray(done, done + run.bytes);
          const inherited = run.node !== null && run.node !== skipFilters(file.node) && !run.zero;
          await file.read(piece, at, inherited ? { ...request, copyOnRead: true } : request);
          done += run.bytes;
        }
      },
    };

    function below(top: BlockNode, bottom: string): BlockNode | null {
      const layer = chainOf(top).find((node) => node.name === bottom);
      if (layer) return backingOf(layer);
      throw new BlockError(
        "EINVAL",
        `Node '${bottom}', the bottom of copy-on-read node '${nodeName}', is not in the chain`,
      );
    }
  },
};
