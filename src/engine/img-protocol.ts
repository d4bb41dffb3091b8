/**
 * What a page and the worker of `img` say to each other: one message and one port for each run.
 *
 *     page ══ ImgRunMessage, a port transferred ══▶ worker
 *          ◀═ port ══ ImgOutput, as it comes; ImgEnd, once
 *          ══ port ═▶ ImgCancel
 *
 * Both sides load this file.
 */

import type { ErrorData } from "./protocol.ts";

/** What a file's name on the command line, or in an image, stands for. */
export type ImgFile =
  /** Read only: a File that the user picked, a Blob. */
  | Blob
  /** A file in OPFS, there or to be made. */
  | { readonly opfs: string }
  /** In the worker's memory, by this name, from one run to the next. */
  | { readonly memory: string };

export interface ImgRunMessage {
  readonly type: "img-run";
  readonly argv: readonly string[];
  readonly files: Readonly<Record<string, ImgFile>>;
  readonly port: MessagePort;
}

/** Asks for the bytes of what is in memory; answered with ImgEnd or a Blob. */
export interface ImgMemoryMessage {
  readonly type: "img-memory";
  readonly name: string;
  readonly port: MessagePort;
}

export type ImgReply =
  | { readonly type: "output"; readonly stream: "stdout" | "stderr"; readonly text: string }
  | { readonly type: "end"; readonly status: number }
  | { readonly type: "blob"; readonly blob: Blob }
  /** The run is over, or never began, through no fault of its words. */
  | { readonly type: "failed"; readonly error: ErrorData };

export interface ImgCancel {
  readonly type: "cancel";
}
