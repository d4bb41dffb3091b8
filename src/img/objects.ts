/**
 * `--object`: of all objects that QEMU has, secrets are what an image can need.
 *
 *     --object secret,id=s,file=passphrase     --object '{"qom-type": "secret", "id": "s", …}'
 */

import * as v from "valibot";
import { check } from "../base/check.ts";
import { BlockError } from "../base/errors.ts";
import { fromKeyval } from "../base/from-keyval.ts";
import { parseKeyval } from "../base/keyval.ts";
import { secretOf, secretProperties } from "../block/secret-object.ts";
import type { Session } from "./session.ts";

const secretObject = v.strictObject({
  "qom-type": v.literal("secret"),
  id: v.string(),
  ...secretProperties,
});

/** @throws BlockError EINVAL that names the parameter, never the secret; EEXIST */
export async function addObject({ graph, host }: Session, text: string): Promise<void> {
  const object = text.startsWith("{")
    ? jsonOf(text)
    : fromKeyval(secretObject, parseKeyval(text, "qom-type").tree);
  const { "qom-type": _, id, ...properties } = check(secretObject, object);
  const readFile = host.readFile && ((name: string) => host.readFile!(name));
  graph.secrets.add(id, await secretOf(properties, readFile));
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // What the parser says would repeat a part of it.
    throw new BlockError("EINVAL", "'--object' begins like JSON, but is none");
  }
}
