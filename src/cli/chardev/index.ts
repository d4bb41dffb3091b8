/** The character devices of a daemon, by their ids, and the backends that there are. */

import { BlockError } from "../../base/errors.ts";
import { Opts } from "../../base/opts.ts";
import type { Chardev, ChardevBackend, ChardevHost, Frontend } from "./chardev.ts";
import { fileBackend } from "./file.ts";
import { nullBackend } from "./null.ts";
import { pipeBackend } from "./pipe.ts";
import { socketBackend } from "./socket.ts";
import { stdioBackend } from "./stdio.ts";

/** As QEMU's id_wellformed(). */
const ID = /^[A-Za-z][A-Za-z0-9\-._]*$/;

interface Entry {
  readonly chardev: Chardev;
  /** A monitor serves its clients. */
  hasFrontend: boolean;
}

/** ChardevInfo: an entry of query-chardev. */
export interface ChardevInfo {
  readonly label: string;
  readonly filename: string;
  readonly "frontend-open": boolean;
}

export class Chardevs {
  readonly #host: ChardevHost;
  readonly #entries = new Map<string, Entry>();
  readonly #backends: readonly ChardevBackend[] = [
    stdioBackend(),
    socketBackend,
    pipeBackend,
    fileBackend,
    nullBackend,
  ];

  constructor(host: ChardevHost) {
    this.#host = host;
  }

  get backends(): string[] {
    return this.#backends.map(({ name }) => name);
  }

  info(): ChardevInfo[] {
    return [...this.#entries].map(([label, { chardev, hasFrontend }]) => ({
      "frontend-open": hasFrontend,
      filename: chardev.filename,
      label,
    }));
  }

  /**
   * @param text as --chardev takes it
   * @throws BlockError EINVAL, EEXIST (id), what the backend throws
   */
  async add(text: string): Promise<void> {
    const opts = new Opts(text, "backend");
    const id = opts.take("id");
    if (id === undefined) throw new BlockError("EINVAL", "Parameter 'id' is missing");
    if (!ID.test(id)) {
      throw new BlockError(
        "EINVAL",
        `Invalid id '${id}': letters, digits, '-', '.' and '_', starting with a letter`,
      );
    }
    const name = opts.take("backend");
    if (name === undefined) throw new BlockError("EINVAL", "Parameter 'backend' is missing");
    const backend = this.#backends.find((candidate) => candidate.name === name);
    if (!backend) {
      const known = this.backends.join(", ");
      throw new BlockError("EINVAL", `There is no character device '${name}', only ${known}`);
    }
    if (this.#entries.has(id)) {
      throw new BlockError("EEXIST", `There is a character device '${id}' already`);
    }
    const chardev = await backend.open({ id, opts, host: this.#host });
    this.#entries.set(id, { chardev, hasFrontend: false });
  }

  /** @throws BlockError ENOENT, EBUSY if the device has a frontend */
  serve(id: string, frontend: Frontend): void {
    const entry = this.#entries.get(id);
    if (!entry) throw new BlockError("ENOENT", `There is no character device '${id}'`);
    if (entry.hasFrontend) throw new BlockError("EBUSY", `Character device '${id}' is in use`);
    entry.hasFrontend = true;
    entry.chardev.serve(frontend);
  }

  async close(): Promise<void> {
    for (const { chardev } of this.#entries.values()) await chardev.close();
  }
}
