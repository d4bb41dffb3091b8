/**
 * What was said and heard in one run of a script, as data that can be compared, recorded and shown.
 *
 *   -> {"execute": "block-stream", …}       a request, as it was sent
 *   <- {"return": {}}                       its reply
 *   <- JOB_STATUS_CHANGE {"id": …}          an event, under the request after which it came
 *   == qemu-io e "read 0 64k"  …            what a tool said
 *   == top.qcow2 {…}                        an image as it was left behind
 *   !! no event … within 20 seconds         something that ended the script
 *
 * A reply stands right below its request, whatever came first: whether an event that waits for
 * nothing is told just before or just after the reply is open in QEMU, too. One order is sure and is
 * kept: that a job was created is told before the reply to the command that made it.
 */

export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [k: string]: Json };

export interface Entry {
  readonly kind: "request" | "reply" | "event" | "tool" | "image" | "trouble" | "parting";
  /** The command of a request and of its reply; the event; the tool's command; the file. */
  readonly about: string;
  readonly body: Json;
  /** A difference on purpose that the script declares for this very entry: the reason. */
  readonly differs?: string;
}

export type Transcript = readonly Entry[];

const LINE_MAX = 100;

/** For people: one line for each entry, or one for each member where that would get too long. */
export function show(entries: Transcript): string[] {
  return entries.flatMap(({ kind, about, body }) => {
    if (kind === "request") return [`-> ${typeof body === "string" ? body : inline(body)}`];
    if (kind === "reply") return paragraph("<- ", body);
    if (kind === "event") return paragraph(`<- ${about} `, body);
    if (kind === "trouble" || kind === "parting") return [`!! ${about}`];
    return paragraph(`== ${about} `, body);
  });
}

function paragraph(head: string, body: Json): string[] {
  const short = `${head}${inline(body)}`;
  if (short.length <= LINE_MAX) return [short];
  return [head.trimEnd(), ...block(body, "     ")];
}

/** A value over several lines; what is short stays in one. */
function block(value: Json, indent: string): string[] {
  const short = inline(value);
  if (indent.length + short.length <= LINE_MAX) return [indent + short];
  if (Array.isArray(value)) {
    return [`${indent}[`, ...value.flatMap((item) => block(item, `${indent}  `)), `${indent}]`];
  }
  if (typeof value !== "object" || value === null) return [indent + short];
  const members = Object.entries(value).flatMap(([name, inner]) => {
    const [first, ...rest] = block(inner, `${indent}  `);
    return [`${indent}  "${name}": ${first!.trimStart()}`, ...rest];
  });
  return [`${indent}{`, ...members, `${indent}}`];
}

/** JSON in one line with spaces, as QEMU writes it. */
export function inline(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(inline).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const members = Object.entries(value).map(([name, inner]) => `"${name}": ${inline(inner)}`);
  return `{${members.join(", ")}}`;
}

/** One entry a line, to be kept in a file. */
export function write(entries: Transcript): string {
  return entries.map((entry) => `${JSON.stringify(entry)}\n`).join("");
}

export function read(text: string): Transcript {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Entry);
}
