/** The command `blocktab`, behind bin/blocktab.mjs: finds the subcommand and runs it. */

import { VERSION } from "../qmp/version.ts";
import { daemon } from "./daemon.ts";
import { imgCommand } from "./img.ts";

const USAGE = `Usage: blocktab COMMAND [options]

  blocktab daemon    serves disk images over QMP and exports, as qemu-storage-daemon does;
                     blocktab daemon --help lists its options
  blocktab img       makes, inspects and changes disk images, as qemu-img does;
                     blocktab img --help lists its commands
  blocktab --help    shows this
  blocktab --version shows the version
`;

/**
 * @param words the command line behind the command's own name
 * @returns the exit status
 */
export async function main([command, ...words]: readonly string[]): Promise<number> {
  switch (command) {
    case "daemon":
      return daemon(words);
    case "img":
      return imgCommand(words);
    case "-h":
    case "--help":
    case "help":
      process.stdout.write(USAGE);
      return 0;
    case "-V":
    case "--version":
      process.stdout.write(`${VERSION.package}\n`);
      return 0;
    case undefined:
      process.stderr.write(USAGE);
      return 1;
    default:
      process.stderr.write(`blocktab: there is no command '${command}'\n\n${USAGE}`);
      return 1;
  }
}
