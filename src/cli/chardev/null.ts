/** Says nothing, and drops what it is told. */

import { Duplex } from "node:stream";
import type { ChardevBackend } from "./chardev.ts";

export const nullBackend: ChardevBackend = {
  name: "null",
  async open({ opts }) {
    opts.finish();
    const nothing = new Duplex({
      read: () => {},
      write: (_chunk, _encoding, done) => done(),
    });
    return {
      filename: "null",
      serve: (frontend) =>
        void frontend({ input: nothing, output: nothing, destroy: () => void nothing.destroy() }),
      close: async () => void nothing.destroy(),
    };
  },
};
