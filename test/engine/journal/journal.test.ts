/** An engine that is lost comes back as its record has it. */

import { describe, expect, it } from "vitest";
import { KiB } from "../../../src/base/bytes.ts";
import { Recorder } from "../../crash/recorder.ts";
import { MemoryJournal, startEngine } from "./rig.ts";

/** base ← top in recorded files, opened as a user would, with an export. */
async function disks(
  client: Awaited<ReturnType<typeof startEngine>>["client"],
  recorder: Recorder,
) {
  for (const name of ["base", "top", "target"]) {
    recorder.add(name);
    const file = { driver: "recorded", filename: name };
    const options = { driver: "qcow2", size: 256 * KiB, file };
    await client.execute("blockdev-create", { "job-id": `make-${name}`, options });
    await client.execute("job-dismiss", { id: `make-${name}` });
  }
  const file = (filename: string) => ({ driver: "recorded", filename });
  await client.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": "top",
    file: file("top"),
    backing: { driver: "qcow2", "node-name": "base", file: file("base"), backing: null },
  });
  await client.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": "target",
    file: file("target"),
  });
  const reply = await client.execute("block-export-add", {
    type: "message-port",
    id: "vda",
    "node-name": "top",
    writable: true,
  });
  expect(reply).toHaveProperty("return");
}

describe("an engine that is lost", () => {
  it("comes back with its nodes, links, settings, objects and exports", async () => {
    const recorder = new Recorder();
    const journal = new MemoryJournal();
    const first = await startEngine(recorder, journal);
    await disks(first.client, recorder);
    await first.client.execute("object-add", {
      "qom-type": "throttle-group",
      id: "slow",
      limits: { "iops-total": 100 },
    });
    await first.client.execute("blockdev-add", {
      driver: "throttle",
      "node-name": "t",
      "throttle-group": "slow",
      file: "target",
    });
    const look = async ({ client }: typeof first) => {
      const names = ["query-named-block-nodes", "query-block-exports", "x-debug-query-block-graph"];
      const all = [];
      for (const name of names) all.push((await client.execute(name))["return"]);
      all.push(await client.execute("qom-get", { path: "slow", property: "limits" }));
      return all;
    };
    const before = await look(first);
    const second = await startEngine(recorder, journal, 2);
    expect(await look(second)).toEqual(before);
    const { return: told } = await second.client.execute("x-query-recovery");
    expect((told as { outcome: string }[]).map(({ outcome }) => outcome)).toEqual(
      Array.from({ length: 9 }, () => "continued"),
    );
  });
});
