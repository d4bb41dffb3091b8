/** Errors as NBD numbers them. What it has no number for is EINVAL, as in QEMU. */

import type { Errno } from "../../base/errors.ts";

const NUMBERS: Readonly<Partial<Record<Errno, number>>> = {
  EPERM: 1,
  EROFS: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  EFBIG: 28,
  ENOSPC: 28,
  ENOTSUP: 95,
};

export function errorNumber(errno: Errno): number {
  return NUMBERS[errno] ?? 22;
}
