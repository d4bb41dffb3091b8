/** Addresses of sockets, as clients write them (QEMU: qapi/sockets.json). */

import * as v from "valibot";
import { size } from "../base/check.ts";
import { BlockError } from "../base/errors.ts";

const PORT_MAX = 65535;
/** Room for a path, with a NUL behind it: Linux has 108 bytes, and cuts off what is longer. */
const UNIX_PATH_BYTES_MAX = 107;
/** None, four numbers, or something with colons in it. */
const NUMERIC_HOST = /^(?:[0-9.]*|[0-9a-fA-F:.%]*:[0-9a-zA-Z:.%]*)$/;

export const inetSocketAddress = v.strictObject({
  host: v.string(),
  /** A number, as text. */
  port: v.string(),
  /** `host` is no name to be looked up. */
  numeric: v.optional(v.boolean()),
  /** The last port that may be tried. */
  to: v.optional(size),
  ipv4: v.optional(v.boolean()),
  ipv6: v.optional(v.boolean()),
  /** For clients; a server's sockets have it off. */
  "keep-alive": v.optional(v.boolean()),
});

export const unixSocketAddress = v.strictObject({ path: v.string() });

/** QEMU's SocketAddressLegacy, of the types that Node has. */
export const socketAddressLegacy = v.variant("type", [
  v.strictObject({ type: v.literal("inet"), data: inetSocketAddress }),
  v.strictObject({ type: v.literal("unix"), data: unixSocketAddress }),
]);

/** An address as hosts take it. */
export type Address =
  | { readonly type: "unix"; readonly path: string }
  | {
      readonly type: "inet";
      /** "": all of this machine's. */
      readonly host: string;
      readonly port: number;
      /** The last port to be tried, if those before are taken. */
      readonly to?: number | undefined;
      /** Only this one of the two families. */
      readonly family?: 4 | 6 | undefined;
    };

/** @throws BlockError EINVAL for one that would be cut off, and so be another one's */
export function unixAddress(path: string): { readonly type: "unix"; readonly path: string } {
  const bytes = new TextEncoder().encode(path).length;
  if (bytes <= UNIX_PATH_BYTES_MAX) return { type: "unix", path };
  throw new BlockError(
    "EINVAL",
    `The socket path '${path}' is too long: ${bytes} bytes, where ${UNIX_PATH_BYTES_MAX} can be; ` +
      "a shorter one, or one from the working folder, will do",
  );
}

/** @throws BlockError EINVAL */
export function toAddress(address: v.InferOutput<typeof socketAddressLegacy>): Address {
  if (address.type === "unix") return unixAddress(address.data.path);
  const { host, port, to, ipv4, ipv6, numeric } = address.data;
  if (numeric && !NUMERIC_HOST.test(host)) {
    throw new BlockError("EINVAL", `'${host}' is a name, which 'numeric' does not allow`);
  }
  if (!/^\d+$/.test(port) || Number(port) > PORT_MAX || (to ?? 0) > PORT_MAX) {
    throw new BlockError("EINVAL", `'${port}' is no port: it takes a number up to ${PORT_MAX}`);
  }
  if (ipv4 === false && ipv6 === false) {
    throw new BlockError("EINVAL", "One of 'ipv4' and 'ipv6' has to be allowed");
  }
  const family = familyOf(ipv4, ipv6);
  return { type: "inet", host, port: Number(port), to, family };
}

/** One that is asked for excludes the other, unless that is asked for as well. */
function familyOf(ipv4: boolean | undefined, ipv6: boolean | undefined): 4 | 6 | undefined {
  if (ipv4 === ipv6) return undefined;
  return ipv4 === false || (ipv6 && !ipv4) ? 6 : 4;
}
