/** The connection itself: negotiation and introspection (QEMU: qapi/control.json). */

import * as v from "valibot";
import { BlockError } from "../../base/errors.ts";
import { EVENTS } from "../events.ts";
import { introspect } from "../introspect.ts";
import { command, nothing } from "../schema.ts";
import { schemaInfo, versionInfo } from "../types.ts";
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

export const queryQmpSchema = command({
  name: "query-qmp-schema",
  doc: "Tells what there is on the wire here: commands, events, and the types of all their members.",
  args: {},
  returns: v.array(schemaInfo),
  run: ({ commands, types }) => introspect(commands.values(), EVENTS, types),
});
