/** What the engine answered instead of doing what it was asked: the one error of a client. */

import type { Errno, ErrorClass } from "../base/errors.ts";
import type { ErrorData } from "./protocol.ts";

export class QmpError extends Error {
  override readonly name = "QmpError";
  readonly class: ErrorClass;
  /** The text, for people. */
  readonly desc: string;
  /** On the data path, and where the client itself gave up; QMP has none. */
  readonly errno: Errno | undefined;

  constructor({ class: errorClass, desc, errno }: ErrorData) {
    super(desc);
    this.class = errorClass;
    this.desc = desc;
    this.errno = errno;
  }
}

/** An error of the client itself. */
export function clientError(errno: Errno, desc: string): QmpError {
  return new QmpError({ class: "GenericError", desc, errno });
}
