/**
 * libvirt's error numbers, and the one error of this floor. The numbers are virErrorNumber's
 * (libvirt: include/libvirt/virterror.h); the sentences are ours.
 */

export const DOMAIN_ERRORS = {
  INTERNAL_ERROR: 1,
  NO_SUPPORT: 3,
  INVALID_ARG: 8,
  OPERATION_FAILED: 9,
  XML_ERROR: 27,
  DOM_EXIST: 28,
  NO_DOMAIN: 42,
  OPERATION_INVALID: 55,
  CONFIG_UNSUPPORTED: 67,
  OPERATION_TIMEOUT: 68,
  ARGUMENT_UNSUPPORTED: 74,
  OPERATION_ABORTED: 78,
  OVERFLOW: 82,
  BLOCK_COPY_ACTIVE: 83,
  OPERATION_UNSUPPORTED: 84,
  INVALID_DOMAIN_CHECKPOINT: 102,
  NO_DOMAIN_CHECKPOINT: 103,
  NO_DOMAIN_BACKUP: 104,
  CHECKPOINT_INCONSISTENT: 109,
} as const;

export type DomainErrorName = keyof typeof DOMAIN_ERRORS;

export class DomainError extends Error {
  override readonly name = "DomainError";
  /** What programs branch on, as in libvirt: a name of DOMAIN_ERRORS, and its number. */
  readonly code: DomainErrorName;
  readonly number: number;

  /** @param message what was attempted and why not, names in '…' */
  constructor(code: DomainErrorName, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.number = DOMAIN_ERRORS[code];
  }
}
