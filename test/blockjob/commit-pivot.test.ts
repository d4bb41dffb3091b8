/** What can go wrong when base takes the place of the merged layers, and what must not. */

import { expect, it } from "vitest";
import { MiB } from "../../src/base/bytes.ts";
import { chain, hash } from "./rig.ts";

it("has succeeded when the headers are written, also where an overlay cannot be read-only again", async () => {
  const names = ["base", "mid", "over", "top"];
  const t = await chain(names, 2 * MiB, { stores: { over: "faulty-mid" } });
  const before = await t.content();
  const over = t.graph.get("over");
  await t.graph.reopen(over, { readOnly: true });
  t.midStore.fault = { op: "reopen", errno: "EIO", after: 1 };
  const job = await t.commit({ device: "vda", jobId: "c0", topNode: "mid" });
  expect(job.error).toBe(null);
  expect(t.layers()).toEqual(["top", "over", "base"]);
  expect(over.state.info?.()["backing-filename"]).toBe("base");
  expect(hash(await t.content())).toBe(hash(before));
  expect(t.bugs).toEqual([]);
});
