/**
 * Passphrases, by the id of the object that holds each (QEMU: crypto/secret.c). They are handed to
 * drivers that ask for one by its id, and to nobody else: no reply, error or trace has one in it.
 */

import { BlockError } from "../base/errors.ts";

/** Where a secret can be read again. */
export interface SecretFile {
  readonly file: string;
  readonly format: "raw" | "base64";
}

export class Secrets {
  readonly #secrets = new Map<string, Uint8Array>();
  readonly #files = new Map<string, SecretFile>();

  /**
   * @param from the file that it came from, if it did
   * @throws BlockError EEXIST
   */
  add(id: string, secret: Uint8Array, from?: SecretFile): void {
    if (this.#secrets.has(id)) throw new BlockError("EEXIST", `There is an object '${id}' already`);
    this.#secrets.set(id, secret.slice());
    if (from) this.#files.set(id, from);
  }

  fileOf(id: string): SecretFile | undefined {
    return this.#files.get(id);
  }

  get ids(): Iterable<string> {
    return this.#secrets.keys();
  }

  has(id: string): boolean {
    return this.#secrets.has(id);
  }

  /** What was opened with it stays open. @throws BlockError ENOENT */
  remove(id: string): void {
    const secret = this.#secrets.get(id);
    if (!secret) throw new BlockError("ENOENT", `There is no object '${id}'`);
    secret.fill(0);
    this.#secrets.delete(id);
    this.#files.delete(id);
  }

  /**
   * A passphrase: text, as bytes.
   *
   * @throws BlockError ENOENT, EINVAL for bytes that no one could type
   */
  passphrase(id: string): Uint8Array {
    const secret = this.#secrets.get(id);
    if (!secret) throw new BlockError("ENOENT", `No secret with id '${id}'`);
    if (!isText(secret)) {
      throw new BlockError("EINVAL", `What secret '${id}' holds is not text in UTF-8`);
    }
    return secret;
  }
}

function isText(bytes: Uint8Array): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return false;
  }
  return !bytes.includes(0);
}
