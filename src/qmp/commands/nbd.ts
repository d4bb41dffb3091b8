/** The NBD server and its exports (QEMU: qapi/block-export.json). Only where there are sockets. */

import * as v from "valibot";
import { size } from "../../base/check.ts";
import { BlockError } from "../../base/errors.ts";
import { NBD, type NbdServer, type NbdServerOptions } from "../../export/nbd/server.ts";
import { command, nothing } from "../schema.ts";
import { type Address, socketAddressLegacy, toAddress } from "../socket-address.ts";

/** How this host listens at an address. */
export type Listen = (
  address: Address,
  onConnection: Parameters<NbdServerOptions["listen"]>[0],
) => ReturnType<NbdServerOptions["listen"]>;

/** As in QEMU 10. */
const MAX_CONNECTIONS = 100;
const HANDSHAKE_SECONDS = 10;

/** The commands around one server. */
export function nbdCommands(server: NbdServer, listen: Listen) {
  return [
    command({
      name: "nbd-server-start",
      doc: "Lets NBD clients connect to an address; what they find there, block-export-add tells.",
      args: {
        addr: socketAddressLegacy,
        "handshake-max-seconds": v.optional(size),
        "tls-creds": v.optional(v.string()),
        "tls-authz": v.optional(v.string()),
        /** 0: as many as come. */
        "max-connections": v.optional(size),
      },
      returns: nothing,
      alone: true,
      async run(_, args) {
        const address = toAddress(args.addr);
        await server.start({
          maxConnections: args["max-connections"] ?? MAX_CONNECTIONS,
          handshakeSeconds: args["handshake-max-seconds"] ?? HANDSHAKE_SECONDS,
          async listen(onConnection) {
            checkNoTls(args["tls-creds"], args["tls-authz"]);
            return listen(address, onConnection);
          },
        });
        return {};
      },
    }),
    command({
      name: "nbd-server-stop",
      doc: "Removes all NBD exports, sends all clients away, and stops listening.",
      args: {},
      returns: nothing,
      alone: true,
      async run({ exports }) {
        await server.stop(() => exports.removeAll(NBD));
        return {};
      },
    }),
    command({
      name: "nbd-server-add",
      deprecated: true,
      doc: "Exports a node under its own name; block-export-add is the newer way.",
      args: {
        device: v.string(),
        name: v.optional(v.string()),
        description: v.optional(v.string()),
        writable: v.optional(v.boolean()),
        bitmap: v.optional(v.string()),
      },
      returns: nothing,
      async run({ graph, exports }, args) {
        const { device, name = device, description, bitmap } = args;
        const node = graph.getDeviceOrNode(device);
        // Silently, as ever.
        const writable = args.writable && !node.readOnly;
        await exports.add(
          { type: NBD, id: name, nodeName: node.name, writable },
          { name, description, ...(bitmap !== undefined && { bitmaps: [bitmap] }) },
        );
        return {};
      },
    }),
    command({
      name: "nbd-server-remove",
      deprecated: true,
      doc: "Takes an NBD export away by its id; block-export-del is the newer way.",
      args: { name: v.string(), mode: v.optional(v.picklist(["safe", "hard"])) },
      returns: nothing,
      async run({ exports }, { name, mode = "safe" }) {
        const found = exports.all.find(({ id }) => id === name);
        if (found && found.type !== NBD) {
          throw new BlockError("EINVAL", `Export '${name}' is not an NBD export`);
        }
        await exports.remove(name, mode === "hard");
        return {};
      },
    }),
  ] as const;
}

/** @throws BlockError */
function checkNoTls(creds: string | undefined, authz: string | undefined): void {
  if (creds !== undefined) {
    throw new BlockError("ENOENT", `There are no TLS credentials '${creds}': no TLS here`);
  }
  if (authz !== undefined) {
    throw new BlockError("ENOTSUP", `'tls-authz' '${authz}' is for TLS, which is not there`);
  }
}
