/** The process' own standard input and output: one client, there from the start. */

import { fstatSync } from "node:fs";
import { Socket } from "node:net";
import type { Writable } from "node:stream";
import { BlockError } from "../../base/errors.ts";
import type { ChardevBackend, ChardevClient } from "./chardev.ts";

export function stdioBackend(): ChardevBackend {
  let isTaken = false;
  return {
    name: "stdio",
    async open({ opts, host }) {
      // Signals of a terminal end the process, as they do where QEMU has it on.
      opts.takeBoolean("signal");
      opts.finish();
      if (host.daemonized) {
        throw new BlockError("EINVAL", "stdio cannot be used together with --daemonize");
      }
      if (isTaken) throw new BlockError("EBUSY", "stdio serves one character device only");
      isTaken = true;
      const client: ChardevClient = {
        input: process.stdin,
        output: openStdout(),
        destroy: () => process.stdin.destroy(),
      };
      return {
        filename: "stdio",
        serve: (frontend) => void frontend(client),
        close: async () => client.destroy(),
      };
    },
  };
}

/**
 * Node's own stream writes into a pipe until it is empty again, and the whole process waits: a
 * client that does not read would hold up all others.
 */
function openStdout(): Writable {
  const stat = fstatSync(1);
  if (!stat.isFIFO() && !stat.isSocket()) return process.stdout;
  return new Socket({ fd: 1, readable: false, writable: true });
}
