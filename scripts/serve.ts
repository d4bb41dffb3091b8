/** `npm start [-- path/to/image] [--port N]`: serves the page and one template until Ctrl-C. */

import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { formatBytes } from "../web/format.ts";
import { ensureDemoTemplate } from "./demo-template.ts";
import { ensurePage } from "./page.ts";
import { type RunningServer, startServer } from "./server.ts";
import { UserError } from "./setup.mjs";
import { drawChain, resolveTemplate, type Template } from "./template.ts";

const USAGE = `Usage: npm start -- [path/to/image] [--port N]

Serves the blocktab page, and as its template the image (raw or qcow2, with the chain of its backing
files), or without one a demo disk that blocktab makes itself.`;

export async function main(args: string[]): Promise<number> {
  const { values, positionals } = parse(args);
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const port = values.port ?? process.env["PORT"];
  const asked = port === undefined ? {} : { port: portOf(port) };
  const template = await chooseTemplate(positionals);
  const server = await startServer({ page: await ensurePage(), template, ...asked });
  report(server, template);
  await interrupted();
  await server.close();
  return 0;
}

/** The template that the command line names, or the demo's. Paths are the user's, not the clone's. */
export async function chooseTemplate(positionals: readonly string[]): Promise<Template> {
  if (positionals.length > 1) {
    throw new UserError(`serves one image; got ${positionals.length}: ${positionals.join(", ")}`);
  }
  const [image] = positionals;
  if (image === undefined)
    return { ...(await resolveTemplate(await ensureDemoTemplate())), demo: true };
  return resolveTemplate(resolve(process.env["INIT_CWD"] ?? ".", image));
}

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: { port: { type: "string" }, help: { type: "boolean", short: "h" } },
    });
  } catch (error) {
    throw new UserError(`${(error as Error).message}\n\n${USAGE}`);
  }
}

function portOf(text: string): number {
  const port = Number(text);
  if (/^\d+$/.test(text) && port <= 65535) return port;
  throw new UserError(`a port is a number from 0 to 65535; got '${text}'`);
}

function report({ url }: RunningServer, template: Template): void {
  console.log(`
  blocktab is at  ${url}

  template        ${template.name}, a disk of ${formatBytes(template.virtualSize)}${template.demo ? " (the demo's own)" : ""}
                  ${drawChain(template)}
  stop            Ctrl-C
`);
}

/** Resolves when somebody asks the process to stop. */
function interrupted(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
      process.once(signal, () => resolve());
  });
}
