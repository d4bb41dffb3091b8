/**
 * The qcow2 driver: QEMU's own image format, versions 2 and 3. See image.ts for its parts.
 */

import type { TypedDriver } from "../../../block/option-types.ts";
import { amendOptions } from "./amend.ts";
import { checkStateOf } from "./check/state.ts";
import { type CreateOptions, create, createOptions } from "./create.ts";
import { looksLikeQcow2 } from "./header.ts";
import { openImage, readImage } from "./open.ts";
import { type OpenOptions, openOptions } from "./open-options.ts";
import { stateOf } from "./state.ts";

/** What types are made of: see src/block/option-types.ts. */
interface Types {
  readonly name: "qcow2";
  readonly kind: "format";
  readonly roles: { readonly file: true; readonly "data-file": false; readonly backing: false };
  readonly openOptions: typeof openOptions;
  readonly createOptions: typeof createOptions;
  readonly amendOptions: typeof amendOptions;
}

export function qcow2Driver(): TypedDriver<Types, OpenOptions, CreateOptions> {
  return {
    name: "qcow2",
    kind: "format",
    roles: { file: true, "data-file": false, backing: false },
    openOptions,
    createOptions,
    amendOptions,
    reopenOptions: Object.keys(openOptions),
    probe: (head) => (looksLikeQcow2(head) ? 100 : 0),
    open: async (context) => {
      if (context.forCheck) return checkStateOf(await readImage(context), context.world.clock);
      return stateOf(
        await openImage(context),
        (readOnly, options, before) => openImage({ ...context, readOnly, options }, before),
        context.options,
        context.world.clock,
      );
    },
    create,
  };
}
