/**
 * `blocktab img`: qemu-img's subcommands, over nodes of a graph that lives as long as the run does.
 * Knows neither Node nor a browser: see host.ts.
 *
 *     img [--trust-names] COMMAND [options] …  ──▶  commands/COMMAND.ts  ──▶  exit status
 */

import { BlockError } from "../base/errors.ts";
import { describeOptions, getopt, type Option } from "../base/getopt.ts";
import { Arguments, type ImgCommand } from "./command.ts";
import { COMMANDS } from "./commands/index.ts";
import type { ImgHost } from "./host.ts";
import { formatNames } from "./image-name.ts";
import { addObject } from "./objects.ts";
import { Session } from "./session.ts";

const HELP = { name: "help", short: "h", help: "shows this and ends" } as const;

/** Before the subcommand. */
const OPTIONS = [
  HELP,
  { name: "version", short: "V", help: "shows the version and ends" },
  {
    name: "trust-names",
    help: "follows the names of backing and data files that\nimages hold, wherever they lead",
  },
] as const satisfies readonly Option[];

/**
 * @param argv the command line behind the command's own name
 * @returns the exit status; all that was opened is closed again
 */
export async function img(argv: readonly string[], host: ImgHost): Promise<number> {
  try {
    return await run(argv, host);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    await host.complain(`${host.name}: ${error.message}\n`);
    return 1;
  }
}

async function run(argv: readonly string[], host: ImgHost): Promise<number> {
  const options: readonly (Option & { readonly name: (typeof OPTIONS)[number]["name"] })[] =
    OPTIONS;
  const { given, operands, rest } = getopt(argv, options, {
    operands: "end",
    last: ["help", "version"],
  });
  const asked = given.at(-1)?.name;
  if (asked === "help") return say(host, helpText(host));
  if (asked === "version") return say(host, `${host.version}\n`);
  const [name, ...words] = [...operands, ...rest];
  if (name === undefined) throw new BlockError("EINVAL", seeHelp(host, "Not enough arguments"));
  const command = COMMANDS.find((one) => one.name === name);
  if (!command) {
    throw new BlockError("EINVAL", seeHelp(host, `There is no command '${name}'`));
  }
  const args = parse(host, command, words);
  if (args.has("help")) return say(host, commandHelp(host, command));
  const trustsNames = given.some((option) => option.name === "trust-names");
  return runIn(new Session(host, { trustsNames }), command, args);
}

function parse(host: ImgHost, command: ImgCommand, words: readonly string[]): Arguments {
  try {
    const { given, operands } = getopt(words, [HELP, ...command.options], {
      operands: command.hasSignedOperands ? "signed" : "any",
      last: ["help"],
    });
    return new Arguments(given, operands);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new BlockError(error.errno, seeHelp(host, error.message, command));
  }
}

async function runIn(session: Session, command: ImgCommand, args: Arguments): Promise<number> {
  let status: number;
  try {
    for (const object of args.all("object")) await addObject(session, object);
    status = await command.run(session, args);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    await session.complain(error.message);
    status = 1;
  }
  try {
    await session.close();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    await session.complain(error.message);
    return status === 0 ? 1 : status;
  }
  return status;
}

async function say(host: ImgHost, text: string): Promise<number> {
  await host.print(text);
  return 0;
}

function seeHelp(host: ImgHost, problem: string, command?: ImgCommand): string {
  return `${problem}; see ${host.name}${command ? ` ${command.name}` : ""} --help`;
}

function helpText(host: ImgHost): string {
  const commands = COMMANDS.map(({ name, summary }) => `  ${name.padEnd(12)}${summary}`);
  return `Usage: ${host.name} [options] COMMAND [options of the command] …

Makes, inspects and changes disk images, as qemu-img does, whose commands and options these are.

${commands.join("\n")}

${describeOptions(OPTIONS)}

${host.name} COMMAND --help lists a command's options. Formats: ${formatNames(host.drivers).join(", ")}.
`;
}

function commandHelp(host: ImgHost, { name, summary, operands, options }: ImgCommand): string {
  return `Usage: ${host.name} ${name} [options] ${operands}

${summary}.

${describeOptions([HELP, ...options])}
`;
}
