/**
 * `bitmap`: changes one of the dirty bitmaps that an image keeps, by one action or by several in their
 * order. What has been done before an action fails stays done.
 */

import { BlockError } from "../../base/errors.ts";
import {
  addBitmap,
  beforeChange,
  clearBitmap,
  disableBitmap,
  enableBitmap,
  mergeBitmaps,
  removeBitmap,
} from "../../block/bitmap-changes.ts";
import { type Arguments, FORMAT, IMAGE_OPTS, type ImgCommand, OBJECT } from "../command.ts";
import { openImage } from "../open.ts";
import type { Session } from "../session.ts";
import { parseSize } from "../size.ts";

const ACTIONS = ["add", "remove", "clear", "enable", "disable", "merge"] as const;
type Action = (typeof ACTIONS)[number];

export const bitmap: ImgCommand = {
  name: "bitmap",
  summary: "Changes a dirty bitmap that an image keeps",
  operands: "FILENAME BITMAP",
  options: [
    FORMAT,
    IMAGE_OPTS,
    { name: "add", help: "makes it; it records from now on" },
    { name: "remove", help: "deletes it" },
    { name: "clear", help: "takes all of the disk for clean" },
    { name: "enable", help: "lets it record" },
    { name: "disable", help: "lets it stay as it is" },
    { name: "merge", value: "SOURCE", help: "adds what is dirty in bitmap SOURCE" },
    { name: "granularity", short: "g", value: "SIZE", help: "of --add: what a bit stands for" },
    { name: "source-file", short: "b", value: "FILENAME", help: "of --merge: the image of SOURCE" },
    { name: "source-format", short: "F", value: "FORMAT", help: "its format" },
    OBJECT,
  ],
  run,
};

async function run(session: Session, args: Arguments): Promise<number> {
  const actions = args.given.filter(({ name }) => ACTIONS.some((action) => action === name));
  check(args, actions.length);
  const [image, name, ...more] = args.operands;
  if (image === undefined || name === undefined || more.length > 0) {
    throw new BlockError("EINVAL", "Expected the names of an image and of a bitmap");
  }
  const granularity = args.last("granularity");
  const bytes = granularity === undefined ? undefined : parseSize(granularity, "Granularity");
  const { node } = await openImage(session, args.theImage(image), {
    writable: true,
    noBacking: true,
  });
  const sourceFile = args.last("source-file");
  const source =
    sourceFile === undefined
      ? node
      : (await openImage(session, sourceOf(args, sourceFile), { noBacking: true })).node;
  for (const { name: action, value } of actions) {
    try {
      await carryOut(
        session,
        action as Action,
        { node: node.name, name },
        { bytes, source: { node: source.name, name: value } },
      );
    } catch (error) {
      throw error instanceof BlockError
        ? error.prepend(`Operation ${action} on bitmap ${name} failed`)
        : error;
    }
  }
  return 0;
}

function check(args: Arguments, actions: number): void {
  if (actions === 0) {
    const names = ACTIONS.map((action) => `--${action}`).join(", ");
    throw new BlockError("EINVAL", `At least one of these is needed: ${names}`);
  }
  const needs: readonly (readonly [string, string])[] = [
    ["granularity", "add"],
    ["source-file", "merge"],
    ["source-format", "source-file"],
  ];
  for (const [option, other] of needs) {
    if (!args.has(option) || args.has(other)) continue;
    throw new BlockError("EINVAL", `Option '--${option}' is only for '--${other}'`);
  }
}

function sourceOf(args: Arguments, name: string) {
  return { name, format: args.last("source-format") };
}

type Name = { readonly node: string; readonly name: string };

async function carryOut(
  { graph }: Session,
  action: Action,
  name: Name,
  { bytes, source }: { readonly bytes: number | undefined; readonly source: Name },
): Promise<void> {
  switch (action) {
    case "add":
      return addBitmap(graph, { ...name, granularity: bytes, persistent: true }).commit();
    case "remove":
      return removeBitmap(graph, name).commit();
    case "clear":
      return clearBitmap(graph, name).commit();
    case "enable":
      return enableBitmap(graph, name).commit();
    case "disable":
      return disableBitmap(graph, name).commit();
    case "merge": {
      const merge = { node: name.node, target: name.name, bitmaps: [source] };
      await beforeChange(graph, name, "merge-target");
      return mergeBitmaps(graph, merge).commit();
    }
  }
}
