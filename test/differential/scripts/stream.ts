/** block-stream. */

import { area, script } from "../script.ts";
import type { Talk } from "../talk.ts";

/** base <- mid <- top, with data in each. */
async function chain(t: Talk): Promise<void> {
  await t.image("base.qcow2", { writes: ["-P 1 0 3M"] });
  await t.image("mid.qcow2", { backing: "base.qcow2", writes: ["-P 2 1M 1M", "-z 2M 128k"] });
  await t.image("top.qcow2", { backing: "mid.qcow2", writes: ["-P 3 1536k 64k"] });
  await t.open("base", "base.qcow2", { "read-only": true, backing: null });
  await t.open("mid", "mid.qcow2", { "read-only": true, backing: "base" });
  await t.open("top", "top.qcow2", { backing: "mid" });
}

export const stream = area("stream", [
  script("a whole chain", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s" });
    await t.job("s", "null");
  }),
  script("to a base", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", "base-node": "base" });
    await t.job("s", "null");
  }),
  script("a stream that is cancelled keeps what it had copied", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", speed: 1024 });
    await t.progress("s", 524288);
    await t.qmp("query-jobs");
    await t.qmp("job-cancel", { id: "s" });
    await t.job("s", "null");
  }),
]);
