/** The QMP commands that only this host has: about its process and its character devices. */

import * as v from "valibot";
import { command, nothing } from "../qmp/schema.ts";
import type { Chardevs } from "./chardev/index.ts";

/** @param quit begins the end of the process, once earlier replies have gone out; its own goes out first */
export function hostCommands(chardevs: Chardevs, quit: () => Promise<void>) {
  return [
    command({
      name: "quit",
      doc: "Ends the daemon in good order.",
      args: {},
      returns: nothing,
      async run() {
        await quit();
        return {};
      },
    }),
    command({
      name: "query-chardev",
      doc: "Lists the character devices.",
      args: {},
      returns: v.array(
        v.strictObject({
          "frontend-open": v.boolean(),
          filename: v.string(),
          label: v.string(),
        }),
      ),
      run: () => chardevs.info(),
    }),
    command({
      name: "query-chardev-backends",
      doc: "Lists the kinds of character devices that --chardev takes.",
      args: {},
      returns: v.array(v.strictObject({ name: v.string() })),
      run: () => chardevs.backends.map((name) => ({ name })),
    }),
  ];
}
