/**
 * null-co and null-aio: a disk of any size that keeps nothing, for tests and measurements of everything
 * above a store (QEMU: block/null.c). What is written is gone. Reads are zeroes; that they are is told
 * only with `read-zeroes`. QEMU leaves buffers as they are without it: what others had in them would
 * get out.
 */

import * as v from "valibot";
import { alignUp } from "../../base/bytes.ts";
import { size } from "../../base/check.ts";
import { sleep } from "../../base/clock.ts";
import { throwIfAborted } from "../../base/errors.ts";
import type { BlockState, RequestOptions } from "../../block/driver.ts";
import type { TypedDriver } from "../../block/option-types.ts";

const DEFAULT_SIZE = 2 ** 30;
const SECTOR_BYTES = 512;

const openOptions = {
  /** 1 GiB unless given; rounded up to whole sectors. */
  size: v.optional(size),
  /** How long each request takes. */
  "latency-ns": v.optional(size),
  "read-zeroes": v.optional(v.boolean()),
};
type OpenOptions = v.InferOutput<v.ObjectSchema<typeof openOptions, undefined>>;

/** What types are made of: see src/block/option-types.ts. */
interface Types<Name> {
  readonly name: Name;
  readonly kind: "protocol";
  readonly roles: Record<never, never>;
  readonly openOptions: typeof openOptions;
}

/** @param name both names mean the same here: there is one thread */
export function nullDriver<const Name extends "null-co" | "null-aio">(
  name: Name,
): TypedDriver<Types<Name>, OpenOptions> {
  return {
    name,
    kind: "protocol",
    roles: {},
    openOptions,
    reopenOptions: [],

    async open({ options, world }): Promise<BlockState> {
      const length = alignUp(options.size ?? DEFAULT_SIZE, SECTOR_BYTES);
      const latencyMs = (options["latency-ns"] ?? 0) / 1e6;
      const zero = options["read-zeroes"] ?? false;
      const wait = async ({ signal }: RequestOptions) => {
        throwIfAborted(signal);
        if (latencyMs > 0) await sleep(world.clock, latencyMs, signal);
      };
      return {
        limits: { requestAlignment: 1, clusterSize: 0, growable: false },
        getLength: () => length,
        async pread(buf, _offset, request) {
          await wait(request);
          buf.fill(0);
        },
        pwrite: (_buf, _offset, request) => wait(request),
        pwriteZeroes: (_offset, _bytes, request) => wait(request),
        pdiscard: (_offset, _bytes, request) => wait(request),
        storeStatus: async (_offset, bytes) => ({ bytes, zero }),
        flush: () => wait({}),
        reopen: async () => {},
        info: () => ({ "actual-size": 0, "dirty-flag": null }),
      };
    },
  };
}
