/**
 * throttle: requests wait at the door until their group's limits let them through. The limits and
 * the queues are the group's (src/block/throttle-group.ts), which object-add makes; flushes do not wait.
 *
 *   device a ──▶ [throttle] ──┐ group "limits0"
 *   device b ──▶ [throttle] ──┘ shared by both        (QEMU: block/throttle.c)
 */

import * as v from "valibot";
import { assert, BlockError } from "../../base/errors.ts";
import { canWriteCompressed } from "../../block/io.ts";
import type { TypedDriver } from "../../block/option-types.ts";

const openOptions = {
  /** Name of a group that is there. */
  "throttle-group": v.string(),
};
type OpenOptions = v.InferOutput<v.ObjectSchema<typeof openOptions, undefined>>;

/** What types are made of: see src/block/option-types.ts. */
interface Types {
  readonly name: "throttle";
  readonly kind: "filter";
  readonly roles: { readonly file: true };
  readonly openOptions: typeof openOptions;
}

export const throttle: TypedDriver<Types, OpenOptions> = {
  name: "throttle",
  kind: "filter",
  roles: { file: true },
  openOptions,
  reopenOptions: ["throttle-group"],

  async open({ options, children, throttleGroups }) {
    const { file } = children;
    assert(file && throttleGroups, "the graph gives throttle a file and its groups");
    const groupOf = (its: OpenOptions) => {
      const name = its["throttle-group"];
      const group = throttleGroups.find(name);
      if (group) return group;
      throw new BlockError("EINVAL", `Throttle group '${name}' does not exist`);
    };
    const member = groupOf(options).join();

    return {
      limits: { requestAlignment: 1, clusterSize: 0, growable: true },
      getLength: () => file.length,
      async pread(buf, offset, request) {
        await member.enter("read", buf.length, request.signal);
        await file.read(buf, offset, request);
      },
      async pwrite(buf, offset, request) {
        await member.enter("write", buf.length, request.signal);
        await file.write(buf, offset, request);
      },
      async pwriteZeroes(offset, bytes, request) {
        await member.enter("write", bytes, request.signal);
        await file.writeZeroes(offset, bytes, request);
      },
      ...(canWriteCompressed(file.node) && {
        async pwriteCompressed(buf: Uint8Array, offset: number) {
          await member.enter("write", buf.length);
          await file.writeCompressed(buf, offset);
        },
      }),
      async pdiscard(offset, bytes, request) {
        await member.enter("write", bytes, request.signal);
        await file.discard(offset, bytes, request);
      },
      drainedBegin: () => member.drainedBegin(),
      drainedEnd: () => member.drainedEnd(),
      async reopen(_readOnly, changed) {
        if (changed !== undefined) member.move(groupOf(changed as OpenOptions));
      },
      close: async () => member.leave(),
    };
  },
};
