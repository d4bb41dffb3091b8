/**
 * The two ways to be wrong.
 *
 *   operating error    the world said no: disk full, broken image, unknown node.
 *                      Thrown as BlockError. Expected, so it has an errno that
 *                      on-error policies can look at and a text that QMP can show.
 *   programmer error   this code is wrong. Thrown by assert(). Nobody catches it
 *                      but the engine's outermost frame, which stops the engine:
 *                      a disk is worth more than an uptime.
 */

/** Errno names in use. Only names travel; the numbers differ between systems. */
export type Errno =
  | "EACCES"
  | "EBUSY"
  | "ECANCELED"
  | "EEXIST"
  | "EFBIG"
  | "EINVAL"
  | "EIO"
  | "ENOENT"
  | "ENOMEDIUM"
  | "ENOMEM"
  | "ENOSPC"
  | "ENOTSUP"
  | "EPERM"
  | "EROFS"
  | "ESTALE"
  | "ETIMEDOUT";

/** QMP error classes (QEMU: qapi/error.json). Everything without a class of its own is generic. */
export type ErrorClass = "GenericError" | "CommandNotFound" | "DeviceNotFound" | "DeviceNotActive";

/** Where an I/O error happened. Offset and bytes are bytes of the node named. */
export interface ErrorPlace {
  readonly node: string;
  readonly op: "read" | "write" | "flush";
  readonly offset: number;
  readonly bytes: number;
}

export class BlockError extends Error {
  override readonly name = "BlockError";
  /** What a policy may branch on. */
  readonly errno: Errno;
  /** What QMP calls it. */
  readonly class: ErrorClass;
  readonly at: ErrorPlace | undefined;

  /**
   * @param errno what a policy may branch on; never branch on the text
   * @param message what a person reads: what was attempted, names in '…', what to do if there is
   *   something to do. Capital first letter, no full stop.
   */
  constructor(
    errno: Errno,
    message: string,
    more: { class?: ErrorClass; at?: ErrorPlace; cause?: unknown } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.errno = errno;
    this.class = more.class ?? "GenericError";
    this.at = more.at;
  }

  /** The same failure told one floor higher: `context` + ": " + message; errno and place kept. */
  prepend(context: string): BlockError {
    return new BlockError(this.errno, `${context}: ${this.message}`, {
      class: this.class,
      cause: this,
      ...(this.at && { at: this.at }),
    });
  }

  /** The shape of the `error` member of a QMP reply. */
  toQmp(): { class: ErrorClass; desc: string } {
    return { class: this.class, desc: this.message };
  }
}

/** States an invariant. The text names what must hold, not the failure. */
export function assert(condition: unknown, invariant: string): asserts condition {
  if (!condition) throw new Error(`Invariant broken: ${invariant}`);
}

/** For catch(), where a wait that has been called off is over as well. */
export function ignoreCanceled(error: unknown): void {
  if (!(error instanceof BlockError && error.errno === "ECANCELED")) throw error;
}

/** Throws ECANCELED if the signal has been raised. Call after every await that a cancel may end. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new BlockError("ECANCELED", "Operation canceled");
}
