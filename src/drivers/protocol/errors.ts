/**
 * What browsers and Node throw, in errno names. This is the only floor that sees such errors, and
 * this is the only table; a driver that knows better for one call says so at that call.
 */

import { BlockError, type Errno } from "../../base/errors.ts";

/** By `name` of a DOMException, or by `code` of a Node system error. What is missing is EIO. */
const ERRNO: Readonly<Record<string, Errno>> = {
  // DOMException names (WebIDL, table of error names).
  NotAllowedError: "EACCES",
  SecurityError: "EACCES", // Firefox in a private window refuses the whole of OPFS with it.
  NoModificationAllowedError: "EBUSY", // Another access handle has the file.
  TypeMismatchError: "EINVAL", // A directory has that name.
  NotFoundError: "ENOENT",
  QuotaExceededError: "ENOSPC",
  NotSupportedError: "ENOTSUP",
  NotReadableError: "ESTALE", // A File whose file was written after it had been picked.
  TimeoutError: "ETIMEDOUT",
  // Firefox's own, from truncate() of an access handle.
  NS_ERROR_FILE_NO_DEVICE_SPACE: "ENOSPC",
  // Node system error codes.
  EACCES: "EACCES",
  EBUSY: "EBUSY",
  EEXIST: "EEXIST",
  EFBIG: "EFBIG",
  EINVAL: "EINVAL",
  EISDIR: "EINVAL",
  ENAMETOOLONG: "EINVAL",
  ENOTDIR: "EINVAL",
  ENOENT: "ENOENT",
  ENOMEM: "ENOMEM",
  EDQUOT: "ENOSPC",
  ENOSPC: "ENOSPC",
  ENOTSUP: "ENOTSUP",
  EPERM: "EPERM",
  EROFS: "EROFS",
};

/**
 * A foreign error as a BlockError with `error` as its cause.
 *
 * @param attempted what was tried, for the text: "Reading 512 bytes at 0 of 'disk.img'"
 * @throws `error` itself if it is not the world's: a bug of ours must not look like a full disk
 */
export function storeError(error: unknown, attempted: string): BlockError {
  if (error instanceof BlockError) return error;
  const label = labelOf(error);
  if (label === undefined) throw error;
  const message = reasonOf(error as Error);
  const errno = Object.hasOwn(ERRNO, label) ? ERRNO[label]! : "EIO";
  return new BlockError(errno, `${attempted} failed: ${message || label}`, { cause: error });
}

/**
 * Node says again what was tried: "ENOENT: no such file or directory, open 'disk.img'"; of sockets
 * "listen EROFS: read-only file system /run/it.sock".
 */
function reasonOf({ message, address }: Error & { readonly address?: unknown }): string {
  const [, reason] = /^E[A-Z0-9]+: (.*?), [a-z]+(?: '.*)?$/s.exec(message) ?? [];
  if (reason !== undefined || typeof address !== "string") return reason ?? message;
  const [, ofSocket] = /^[a-z]+ E[A-Z0-9]+: (.*)$/s.exec(message) ?? [];
  const where = ` ${address}`;
  return ofSocket?.endsWith(where) ? ofSocket.slice(0, -where.length) : message;
}

/** Undefined for TypeError and its like, which are the language's and not a store's. */
function labelOf(error: unknown): string | undefined {
  if (error instanceof DOMException) return error.name;
  if (!(typeof error === "object" && error !== null)) return undefined;
  const { name, code, syscall } = error as { name?: unknown; code?: unknown; syscall?: unknown };
  if (typeof code === "string" && typeof syscall === "string") return code;
  // Firefox throws objects that are no DOMException for codes that have no web name.
  if (typeof name === "string" && name.startsWith("NS_ERROR_")) return name;
  return undefined;
}
