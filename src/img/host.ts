/**
 * Where `img` runs: what it has of a command line's files, output and user. src/cli/img.ts is this on
 * Node; a page has one over OPFS, Blobs and memory.
 *
 * Two kinds of names: what the user wrote is asked for by store(), what an image says is a label and
 * has to come through follow() first.
 */

import type { BlockDriver, World } from "../block/driver.ts";
import type { BlockdevOptions } from "../block/options.ts";

/** Where a name in an image stands. */
export interface Naming {
  /** The image's own name. */
  readonly image: string;
  readonly role: "backing" | "data-file";
  /** The user follows whatever images say. */
  readonly trusted: boolean;
}

export interface ImgHost {
  /** How messages begin: the command's own name. */
  readonly name: string;
  /** What --version shows, without the line's end. */
  readonly version: string;
  readonly world: World;
  /** Every driver that there is here; they are one run's. */
  readonly drivers: Iterable<BlockDriver>;
  /** Raised when the user wants no more. */
  readonly signal?: AbortSignal;
  /**
   * What blockdev-add would open for a file's name, which need not be there yet.
   *
   * @throws BlockError EINVAL if no file could be called that
   */
  store(name: string): BlockdevOptions;
  /**
   * The name, for store(), of what an image calls its backing or data file.
   *
   * @throws BlockError EPERM that says what to do if the name is not followed
   */
  follow(label: string, from: Naming): Promise<string>;
  /** What an image's name for another file comes to, to be shown; nothing is followed. */
  fullName(label: string, image: string): string;
  /**
   * Takes away a file that this run has made under a name for store(); does nothing if it is not there.
   *
   * @throws BlockError if it cannot be
   */
  remove(name: string): Promise<void>;
  /** For programs and people; settles when more can be taken. */
  print(text: string): Promise<void>;
  /** For people: what went wrong. */
  complain(text: string): Promise<void>;
  /** What a secret's `file` holds. Without it there are no such files. */
  readFile?(name: string): Promise<Uint8Array>;
  /** Calls back when the user asks how far it is, until the returned function is called. */
  onProgressAsked?(tell: () => void): () => void;
}
