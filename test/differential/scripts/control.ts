/** Negotiation, malformed requests, and what has nothing to do with disks. */

import { area, script } from "../script.ts";

export const control = area("control", [
  script(
    "nothing but qmp_capabilities is taken before the negotiation",
    async (t) => {
      await t.greeting();
      await t.raw('{"execute": "query-jobs"}');
      await t.raw('{"execute": "nonsense"}');
      await t.raw('{"execute": "qmp_capabilities", "arguments": {"foo": 1}}');
      await t.qmp("qmp_capabilities");
      await t.qmp("qmp_capabilities");
      await t.qmp("query-jobs");
    },
    { raw: true },
  ),
  script("an id of any kind comes back", async (t) => {
    for (const id of ["1", '"x"', "null", '[1, {"a": null}]', '{"b": 1.5}', "true"]) {
      await t.raw(`{"execute": "query-jobs", "id": ${id}}`);
      await t.raw(`{"execute": "nonsense", "id": ${id}}`);
    }
  }),
]);
