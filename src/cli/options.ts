/** The options of `blocktab daemon` as data. How command lines are read: src/base/getopt.ts. */

import { describeOptions, type Given, getopt, type Option } from "../base/getopt.ts";

export const OPTIONS = [
  { name: "help", short: "h", help: "shows this and ends" },
  { name: "version", short: "V", help: "shows the version and ends" },
  {
    name: "trace",
    short: "T",
    value: "[[enable=]PATTERN][,events=FILE][,file=FILE]",
    help: "watches the engine; `help` lists what there is to see",
  },
  {
    name: "blockdev",
    value: "[driver=]DRIVER[,node-name=NAME][,MEMBER=VALUE…] | JSON",
    help: "opens a node, as blockdev-add does",
  },
  {
    name: "chardev",
    value: "[backend=]BACKEND,id=ID[,MEMBER=VALUE…]",
    help: "opens a character device for a monitor:\nstdio, socket, pipe, file, null",
  },
  { name: "daemonize", help: "goes to the background once all is set up" },
  {
    name: "export",
    value: "[type=]TYPE,id=ID,node-name=NAME[,MEMBER=VALUE…] | JSON",
    help: "exports a node, as block-export-add does",
  },
  {
    name: "journal",
    value: "FILE",
    help: "keeps there what a next daemon goes on with if\nthis one is lost, and brings back what is in it",
  },
  {
    name: "monitor",
    value: "[chardev=]ID[,mode=control][,pretty=on|off]",
    help: "serves QMP on a character device",
  },
  {
    name: "nbd-server",
    value: "addr.type=inet,addr.host=HOST,addr.port=PORT | addr.type=unix,addr.path=PATH",
    help: "starts an NBD server, as nbd-server-start does",
  },
  {
    name: "object",
    value: "[qom-type=]TYPE,id=ID[,PROPERTY=VALUE…] | JSON",
    help: "makes an object, as object-add does",
  },
  { name: "pidfile", value: "PATH", help: "writes the process number there once all is set up" },
] as const satisfies readonly Option[];

export type OptionName = (typeof OPTIONS)[number]["name"];

/**
 * In the order of the words. Ends early behind an option that ends the command (help, version).
 *
 * @throws BlockError EINVAL
 */
export function parseCommandLine(words: readonly string[]): readonly Given<OptionName>[] {
  const all: readonly (Option & { readonly name: OptionName })[] = OPTIONS;
  return getopt(words, all, { operands: "none", last: ["help", "version"] }).given;
}

/** What --help shows. */
export function helpText(): string {
  return `Usage: blocktab daemon [options]

Serves disk images over QMP and exports, as qemu-storage-daemon does, whose options these are.
They are carried out in the order in which they are given.

${describeOptions(OPTIONS)}

A value may be JSON where that is said; else a comma in it is written twice. For example:

  blocktab daemon --blockdev file,node-name=f,filename=disk.qcow2 \\
      --blockdev qcow2,node-name=disk,file=f \\
      --chardev socket,path=qmp.sock,server=on,wait=off,id=c --monitor c
`;
}
