/** A file that takes down what a monitor says; nobody asks it anything, unless from `input-path`. */

import { createReadStream, createWriteStream } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { Readable } from "node:stream";
import { BlockError } from "../../base/errors.ts";
import { type ChardevBackend, systemError } from "./chardev.ts";

export const fileBackend: ChardevBackend = {
  name: "file",
  async open({ opts }) {
    const path = opts.take("path");
    const inputPath = opts.take("input-path");
    const append = opts.takeBoolean("append") ?? false;
    opts.finish();
    if (path === undefined) throw new BlockError("EINVAL", "Parameter 'path' is missing");
    const handle = await openPath(path, append ? "a" : "w");
    const input = inputPath === undefined ? silence() : await openInput(inputPath, handle);
    const output = createWriteStream(path, { fd: handle });
    // Told by closing, too.
    output.on("error", () => {});
    const destroy = () => {
      input.destroy();
      output.destroy();
    };
    return {
      filename: "file",
      serve: (frontend) => void frontend({ input, output, destroy }),
      close: async () => destroy(),
    };
  },
};

async function openInput(path: string, opened: FileHandle): Promise<Readable> {
  try {
    return createReadStream(path, { fd: await openPath(path, "r") });
  } catch (error) {
    await opened.close();
    throw error;
  }
}

async function openPath(path: string, flags: string): Promise<FileHandle> {
  try {
    return await open(path, flags);
  } catch (error) {
    throw systemError(error, `Opening '${path}'`);
  }
}

function silence(): Readable {
  return new Readable({ read: () => {} });
}
