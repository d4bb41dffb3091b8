/** The connection itself: negotiation and introspection (QEMU: qapi/control.json). */

import * as v from "valibot";
import { BlockError } from "../../base/errors.ts";
import { command, nothing } from "../schema.ts";
import { versionInfo } from "../types.ts";
import { CAPABILITIES, VERSION } from "../version.ts";

export const qmpCapabilities = command({
  name: "qmp_capabilities",
  doc: "Ends the negotiation: from now on commands are served and events are sent.",
  args: { enable: v.optional(v.array(v.picklist(CAPABILITIES))) },
  returns: nothing,
  run({ session }, { enable = [] }) {
    if (session.negotiated) {
      throw new BlockError(
        "EINVAL",
        "Capabilities negotiation is already complete, command ignored",
        { class: "CommandNotFound" },
      );
    }
    session.negotiated = true;
    session.oob = enable.includes("oob");
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
