/** What backupBegin() takes: libvirt's domainbackup XML as plain JSON. */

import * as v from "valibot";
import { formatSchema, nameSchema } from "./definition.ts";
import { DomainError } from "./errors.ts";
import { checkSource, sourceSchema } from "./source.ts";

const diskEntries = {
  /** The disk's target. */
  name: v.string(),
  backup: v.optional(v.picklist(["yes", "no"])),
  backupmode: v.optional(v.picklist(["full", "incremental"])),
  /** A checkpoint of its own. */
  incremental: v.optional(nameSchema),
  /** Default qcow2. */
  format: v.optional(formatSchema),
  /** Where a push goes. */
  target: v.optional(sourceSchema),
  /** Where a pull keeps what is overwritten. */
  scratch: v.optional(sourceSchema),
  /** Of a pull: what its clients see the disk as, and the bitmap of what has changed. */
  exportname: v.optional(v.string()),
  exportbitmap: v.optional(v.string()),
};
const disk = v.strictObject(diskEntries);
export type BackupDiskDefinition = v.InferOutput<typeof disk>;

const port = v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(65535));

/** NBD. */
export const serverSchema = v.variant("transport", [
  v.strictObject({ transport: v.literal("unix"), socket: v.string() }),
  v.strictObject({ transport: v.literal("tcp"), name: v.optional(v.string()), port }),
]);

export const backupSchema = v.strictObject({
  /** Default push. */
  mode: v.optional(v.picklist(["push", "pull"])),
  /** What has changed since that checkpoint. Without it: everything. */
  incremental: v.optional(nameSchema),
  /** Of a pull: NBD, where there are sockets. Without it: devices for pages. */
  server: v.optional(serverSchema),
  /** Those that are not listed are left out; without a list all are in that can be written. */
  disks: v.optional(v.array(disk)),
});
export type BackupDefinition = v.InferOutput<typeof backupSchema>;

/** What no schema says. @throws DomainError CONFIG_UNSUPPORTED, XML_ERROR */
export function checkBackup(backup: BackupDefinition): void {
  const refuse = (code: "CONFIG_UNSUPPORTED" | "XML_ERROR", text: string): never => {
    throw new DomainError(code, text);
  };
  const { mode = "push", server, disks = [] } = backup;
  if (mode === "push" && server) {
    refuse("CONFIG_UNSUPPORTED", "A server is for backups of mode pull");
  }
  if (server?.transport === "unix" && !server.socket.startsWith("/")) {
    refuse("XML_ERROR", `The socket '${server.socket}' is not an absolute path`);
  }
  const names = new Set<string>();
  for (const disk of disks) {
    const { name, target, scratch, exportname, exportbitmap, backupmode, incremental } = disk;
    if (names.has(name)) refuse("CONFIG_UNSUPPORTED", `Disk '${name}' is there twice`);
    names.add(name);
    const isForPull = scratch || exportname !== undefined || exportbitmap !== undefined;
    if (mode === "push" && isForPull) {
      const text = "scratch, exportname and exportbitmap are for backups of mode pull";
      refuse("XML_ERROR", `Disk '${name}': ${text}`);
    }
    if (mode === "pull" && target) {
      refuse("XML_ERROR", `Disk '${name}': a target is for backups of mode push`);
    }
    if (backupmode === "incremental" && (incremental ?? backup.incremental) === undefined) {
      refuse("CONFIG_UNSUPPORTED", `Disk '${name}': incremental since which checkpoint?`);
    }
    for (const source of [target, scratch]) if (source) checkSource(source, "XML_ERROR");
  }
}
