/**
 * Two named pipes that are there already, `path`.in for what comes and `path`.out for what goes, or
 * the one pipe `path` for both. Each is opened for both directions: nobody waits for the other end,
 * and it may come and go.
 */

import { closeSync, constants, existsSync, fstatSync, openSync } from "node:fs";
import { Socket } from "node:net";
import { BlockError } from "../../base/errors.ts";
import { type ChardevBackend, systemError } from "./chardev.ts";

export const pipeBackend: ChardevBackend = {
  name: "pipe",
  async open({ opts }) {
    const path = opts.take("path");
    opts.finish();
    if (path === undefined) throw new BlockError("EINVAL", "Parameter 'path' is missing");
    const isPair = existsSync(`${path}.in`) && existsSync(`${path}.out`);
    const input = openPipe(isPair ? `${path}.in` : path, "readable");
    const output = openPipe(isPair ? `${path}.out` : path, "writable");
    const destroy = () => {
      input.destroy();
      output.destroy();
    };
    return {
      filename: "pipe",
      serve: (frontend) => void frontend({ input, output, destroy }),
      close: async () => destroy(),
    };
  },
};

function openPipe(path: string, direction: "readable" | "writable"): Socket {
  const attempted = `Opening the pipe '${path}'`;
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (error) {
    throw systemError(error, attempted);
  }
  if (!fstatSync(fd).isFIFO()) {
    closeSync(fd);
    throw new BlockError("EINVAL", `${attempted} failed: it is not a pipe`);
  }
  const pipe = new Socket({
    fd,
    readable: direction === "readable",
    writable: direction === "writable",
  });
  // Told by closing, too.
  pipe.on("error", () => {});
  return pipe;
}
