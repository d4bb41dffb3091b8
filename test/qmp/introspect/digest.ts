/**
 * A schema in short: a line for each entry of a reply to query-qmp-schema. qemu-10.txt is that of a
 * qemu-storage-daemon 10.0, made by
 *
 *     npx tsx test/qmp/introspect/digest.ts < reply.json > test/qmp/introspect/qemu-10.txt
 *
 *     command block-stream 29 2          object 38 driver:90 discard?:91 tag=driver +file:121
 *     event STOP 2                       enum 91 ignore unmap
 *     array [8] 8                        alternate 109 str 25        builtin str string
 *
 * A member that may be left out has a question mark, a feature a $ before it; `values` of enums, which
 * repeat their members, are left out. Such a reply has names and structure in it, and no texts.
 */

import { readFileSync } from "node:fs";
import type { SchemaInfo } from "../../../src/qmp/types.ts";

interface Named {
  readonly name: string;
  readonly features?: string[];
}

const featuresText = ({ features = [] }: { features?: string[] }) =>
  features.map((feature) => `$${feature}`).join("");

function digest(info: SchemaInfo): string {
  const words = [info["meta-type"], info.name + featuresText(info)];
  switch (info["meta-type"]) {
    case "command":
      words.push(info["arg-type"], info["ret-type"]);
      break;
    case "event":
      words.push(info["arg-type"]);
      break;
    case "array":
      words.push(info["element-type"]);
      break;
    case "builtin":
      words.push(info["json-type"]);
      break;
    case "enum":
      words.push(...info.members.map((one) => one.name + featuresText(one)));
      break;
    case "alternate":
      words.push(...info.members.map(({ type }) => type));
      break;
    case "object":
      for (const one of info.members) {
        const mark = "default" in one ? "?" : "";
        words.push(`${one.name}${mark}:${one.type}${featuresText(one)}`);
      }
      if (info.tag !== undefined) words.push(`tag=${info.tag}`);
      words.push(...(info.variants ?? []).map((one) => `+${one.case}:${one.type}`));
  }
  return words.join(" ");
}

/** The way back. */
export function undigest(text: string): SchemaInfo[] {
  return text.trim().split("\n").map(undigestLine);
}

function undigestLine(line: string): SchemaInfo {
  const [meta, name = "", ...words] = line.split(" ");
  const [first = "", second = ""] = words;
  const head = named(name);
  switch (meta as SchemaInfo["meta-type"]) {
    case "command":
      return { ...head, "meta-type": "command", "arg-type": first, "ret-type": second };
    case "event":
      return { ...head, "meta-type": "event", "arg-type": first };
    case "array":
      return { ...head, "meta-type": "array", "element-type": first };
    case "builtin":
      return { ...head, "meta-type": "builtin", "json-type": first as "string" };
    case "enum": {
      const members = words.map(named);
      return { ...head, "meta-type": "enum", members, values: members.map((one) => one.name) };
    }
    case "alternate":
      return { ...head, "meta-type": "alternate", members: words.map((type) => ({ type })) };
    case "object": {
      const members = words.filter((word) => !/^(\+|tag=)/.test(word)).map(member);
      const tag = words.find((word) => word.startsWith("tag="))?.slice("tag=".length);
      const variants = words
        .filter((word) => word.startsWith("+"))
        .map((word) => word.slice(1).split(":"))
        .map(([one = "", type = ""]) => ({ case: one, type }));
      return {
        ...head,
        "meta-type": "object",
        members,
        ...(tag !== undefined && { tag, variants }),
      };
    }
  }
}

function named(word: string): Named {
  const [name = "", ...features] = word.split("$");
  return { name, ...(features.length > 0 && { features }) };
}

function member(word: string) {
  const [name = "", rest = ""] = word.split(":");
  const { name: type, features } = named(rest);
  const isOptional = name.endsWith("?");
  return {
    name: isOptional ? name.slice(0, -1) : name,
    type,
    ...(isOptional && { default: null }),
    ...(features && { features }),
  };
}

if (process.argv[1]?.endsWith("digest.ts")) {
  const reply = JSON.parse(readFileSync(0, "utf8"));
  const infos: SchemaInfo[] = reply.return ?? reply;
  process.stdout.write(`${infos.map(digest).join("\n")}\n`);
}
