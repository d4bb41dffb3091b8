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
  script(
    "capabilities that are there, and that are not",
    async (t) => {
      await t.greeting();
      await t.qmp("qmp_capabilities", { enable: ["nonsense"] });
      await t.qmp("qmp_capabilities", { enable: "oob" });
      await t.qmp("qmp_capabilities", { enable: ["oob"] });
      await t.raw('{"exec-oob": "query-jobs"}');
      await t.raw('{"exec-oob": "nonsense", "id": 1}');
      await t.raw('{"execute": "query-jobs", "id": 2}');
    },
    { raw: true },
  ),
  script("an id of any kind comes back", async (t) => {
    for (const id of ["1", '"x"', "null", '[1, {"a": null}]', '{"b": 1.5}', "true"]) {
      await t.raw(`{"execute": "query-jobs", "id": ${id}}`);
      await t.raw(`{"execute": "nonsense", "id": ${id}}`);
    }
  }),
  script("requests that are none", async (t) => {
    await t.raw("[]");
    await t.raw('"x" ');
    await t.raw("1 ");
    await t.raw("null ");
    await t.raw("{}");
    await t.raw('{"arguments": {}, "id": 1}');
    await t.raw('{"execute": 1, "id": "x"}');
    await t.raw('{"execute": "query-jobs", "extra": 1}');
    await t.raw('{"execute": "query-jobs", "arguments": []}');
    await t.raw('{"execute": "query-jobs", "exec-oob": "query-jobs"}');
    await t.raw('{"exec-oob": "query-jobs"}');
    await t.raw('{"execute": ""}');
    await t.qmp("query-jobs");
  }),
  script("text that is no JSON", async (t) => {
    await t.raw('{"a":}');
    await t.qmp("query-jobs");
    await t.raw('{"execute" "query-jobs"}');
    await t.qmp("query-jobs");
    await t.raw("{'execute': 'query-jobs', 'id': 'it\\'s'}");
    await t.raw('{"execute": "query-jobs", "id": "\\u00e4\\n\\ud83d\\ude00"}');
  }),
  script("arguments of wrong types", async (t) => {
    await t.qmp("job-pause");
    await t.qmp("job-pause", {});
    await t.qmp("job-pause", { id: 1 });
    await t.qmp("job-pause", { id: null });
    await t.qmp("job-pause", { id: [] });
    await t.qmp("job-pause", { id: "x", y: 2 });
    await t.qmp("block-job-set-speed", { device: "x", speed: "1" });
    await t.qmp("block-job-set-speed", { device: "x", speed: 1.5 });
    await t.qmp("block-job-set-speed", { device: "x", speed: null });
    await t.qmp("block-job-set-speed", { device: "x" });
    await t.qmp("block-job-cancel", { device: "x", force: "yes" });
    await t.raw('{"execute": "block-job-set-speed", "arguments": {"device": "x", "speed": 1e3}}');
  }),
  script("commands that are none", async (t) => {
    for (const command of ["nonsense", "query_jobs", "Query-jobs", "device_add", "stop", "cont"]) {
      await t.qmp(command);
    }
  }),
  script("many requests at once are answered in order", async (t) => {
    await t.qmp("query-jobs");
    await t.rawMany(
      Array.from({ length: 20 }, (_, i) => `{"execute": "query-jobs", "id": ${i}}`).join(""),
      20,
    );
  }),
  script("quit, and what comes after it", async (t) => {
    await t.qmp("quit", { x: 1 });
  }),
]);
