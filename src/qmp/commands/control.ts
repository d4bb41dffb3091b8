/** The connection itself: negotiation and introspection (QEMU: qapi/control.json). */

import * as v from "valibot";
import { BlockError } from "../../base/errors.ts";
import { command, nothing } from "../schema.ts";
import { versionInfo } from "../types.ts";
import { VERSION } from "../version.ts";

export const qmpCapabilities = command({
  name: "qmp_capabilities",
  doc: "Ends the negotiation: from now on commands are served and events are sent.",
  args: { enable: v.optional(v.array(v.string())) },
  returns: nothing,
  run({ session }, { enable = [] }) {
    if (session.negotiated) {
      throw new BlockError(
        "EINVAL",
        "Capabilities negotiation is already complete, command ignored",
        { class: "CommandNotFound" },
      );
    }
    if (enable.length > 0) {
      throw new BlockError("EINVAL", `Capability '${enable[0]}' is not available`);
    }
    session.negotiated = true;
    return {};
  },
});

export const queryVersion = command({
  name: "query-version",
  doc: "Tells the version of this program, and of the QEMU whose protocol it speaks.",
  args: {},
  returns: versionInfo,
  run: () => VERSION,
});

export const queryCommands = command({
  name: "query-commands",
  doc: "Lists the commands that there are.",
  args: {},
  returns: v.array(v.strictObject({ name: v.string() })),
  run: ({ commands }) => [...commands.keys()].map((name) => ({ name })),
});
