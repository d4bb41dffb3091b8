/**
 * An image on a web server, read by Range requests; read only.
 *
 * The resource must stay what it was at open: every answer is compared (http-range.ts), and one that
 * is of another version is an error, not data. Blocks are cached and shared (http-cache.ts).
 */

import * as v from "valibot";
import { MiB } from "../../base/bytes.ts";
import { size } from "../../base/check.ts";
import { BlockError } from "../../base/errors.ts";
import type { BlockState, RequestOptions, StateInfo } from "../../block/driver.ts";
import type { TypedDriver } from "../../block/option-types.ts";
import { BlockCache } from "./http-cache.ts";
import {
  compareIdentity,
  type Fetch,
  type Identity,
  identify,
  type Resource,
  readRange,
} from "./http-range.ts";

const CACHE_BYTES = 16 * MiB;
const READAHEAD_BYTES = 1 * MiB;
const RETRY_SECONDS = 5;
const TIMEOUT_SECONDS = 30;

const seconds = v.pipe(v.number(), v.finite(), v.minValue(0), v.maxValue(86_400));

const url = v.pipe(
  v.string(),
  v.check(
    (text) => /^https?:\/\/[^/@]+(\/|$)/i.test(text) && URL.canParse(text),
    "an absolute http or https URL without user name and password",
  ),
);

const openOptions = {
  url,
  /** What the resource was when it was last used, as info() tells; an error if it is not now. */
  expect: v.exactOptional(
    v.strictObject({
      etag: v.exactOptional(v.string()),
      "last-modified": v.exactOptional(v.string()),
      length: v.exactOptional(size),
    }),
  ),
  /** Bytes of the resource to keep in memory. */
  "cache-size": v.exactOptional(size, CACHE_BYTES),
  /** Bytes to fetch ahead of sequential reads. */
  readahead: v.exactOptional(size, READAHEAD_BYTES),
  /** Seconds during which a request that failed is tried again. */
  "retry-time": v.exactOptional(seconds, RETRY_SECONDS),
  /** Seconds that the server may be silent within one request. */
  timeout: v.exactOptional(seconds, TIMEOUT_SECONDS),
};
type OpenOptions = v.InferOutput<v.ObjectSchema<typeof openOptions, undefined>>;

/** What types are made of: see src/block/option-types.ts. */
interface Types {
  readonly name: "http";
  readonly kind: "protocol";
  readonly roles: Record<never, never>;
  readonly openOptions: typeof openOptions;
}

/** @param fetch what to ask the server with, if not the platform's own */
export function httpDriver(
  fetch: Fetch = (url, init) => globalThis.fetch(url, init),
): TypedDriver<Types, OpenOptions> {
  return {
    name: "http",
    kind: "protocol",
    roles: {},
    openOptions,
    reopenOptions: [],

    async open({ options, world, readOnly, signal }) {
      const { url } = options;
      if (!readOnly) {
        throw new BlockError("EACCES", `'${url}' is read only: set 'read-only' to true`);
      }
      const resource: Resource = {
        url,
        fetch,
        clock: world.clock,
        random: world.random,
        retryMs: options["retry-time"] * 1000,
        timeoutMs: options.timeout * 1000,
      };
      const found = await identify(resource, signal);
      // A server that hides the length can not contradict the one that is expected.
      const length = found.length ?? options.expect?.length;
      if (length === undefined) {
        throw new BlockError(
          "ENOTSUP",
          `The server does not tell the length of '${url}': it must send Content-Length or, ` +
            "to another origin, list Content-Range in Access-Control-Expose-Headers",
        );
      }
      const identity = { ...found, length };
      compareIdentity(url, options.expect ?? {}, identity, "is not what was expected");
      return new HttpState(resource, identity, options);
    },
  };
}

class HttpState implements BlockState {
  readonly limits = { requestAlignment: 1, clusterSize: 0, growable: false };
  readonly #url: string;
  readonly #identity: Identity & { readonly length: number };
  readonly #cache: BlockCache;
  readonly #readahead: number;
  /** Where the last read ended. */
  #next = -1;

  constructor(
    resource: Resource,
    identity: Identity & { readonly length: number },
    options: OpenOptions,
  ) {
    this.#url = resource.url;
    this.#identity = identity;
    this.#readahead = Math.min(options.readahead, options["cache-size"] / 2);
    this.#cache = new BlockCache(
      (buffers, offset, signal) => readRange(resource, identity, buffers, offset, signal),
      identity.length,
      options["cache-size"],
    );
  }

  getLength(): number {
    return this.#identity.length;
  }

  async pread(buf: Uint8Array, offset: number, { signal }: RequestOptions = {}): Promise<void> {
    const end = offset + buf.length;
    const sequential = offset === this.#next;
    this.#next = end;
    await this.#cache.read(buf, offset, signal);
    if (sequential && this.#readahead > 0) this.#cache.prefetch(end, this.#readahead);
  }

  async reopen(readOnly: boolean): Promise<void> {
    if (!readOnly) throw new BlockError("EROFS", `'${this.#url}' can only be read`);
  }

  async close(): Promise<void> {
    this.#cache.close();
  }

  info(): StateInfo {
    return {
      filename: this.#url,
      "format-specific": { type: "http", data: { url: this.#url, ...this.#identity } },
    };
  }
}
