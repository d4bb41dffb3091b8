/** The first words of a connection. */

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { VERSION } from "../../src/qmp/version.ts";
import { Conversation, conversation, testEngine } from "./conversation.ts";

describe("a new monitor", () => {
  it("greets, then serves nothing but qmp_capabilities", async () => {
    const qmp = await conversation();
    await qmp.execute("query-version");
    await qmp.execute("no-such-command");
    await qmp.execute("qmp_capabilities", { enabel: [] });
    await qmp.execute("qmp_capabilities", { enable: ["bogus"] });
    await qmp.execute("query-version");
    await qmp.execute("qmp_capabilities", { enable: [] });
    await qmp.execute("query-version");
    await qmp.execute("qmp_capabilities");
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      <- {"QMP":{"version":{"qemu":{"major":10,"minor":1,"micro":0},"package":"blocktab 0.1.0"},"capabilities":["oob"]}}
      -> {"execute":"query-version"}
      <- {"error":{"class":"CommandNotFound","desc":"Expecting capabilities negotiation with 'qmp_capabilities'"}}
      -> {"execute":"no-such-command"}
      <- {"error":{"class":"CommandNotFound","desc":"Expecting capabilities negotiation with 'qmp_capabilities'"}}
      -> {"execute":"qmp_capabilities","arguments":{"enabel":[]}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'enabel' is unexpected"}}
      -> {"execute":"qmp_capabilities","arguments":{"enable":["bogus"]}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'enable[0]' does not accept value 'bogus'; it takes 'oob'"}}
      -> {"execute":"query-version"}
      <- {"error":{"class":"CommandNotFound","desc":"Expecting capabilities negotiation with 'qmp_capabilities'"}}
      -> {"execute":"qmp_capabilities","arguments":{"enable":[]}}
      <- {"return":{}}
      -> {"execute":"query-version"}
      <- {"return":{"qemu":{"major":10,"minor":1,"micro":0},"package":"blocktab 0.1.0"}}
      -> {"execute":"qmp_capabilities"}
      <- {"error":{"class":"CommandNotFound","desc":"Capabilities negotiation is already complete, command ignored"}}
      "
    `);
  });

  it("hears of no events before it has negotiated", async () => {
    const world = await testEngine();
    const talker = await new Conversation(world).negotiated();
    const listener = new Conversation(world);
    const options = { driver: "memory", name: "m", size: 0 };
    await talker.execute("blockdev-create", { "job-id": "j", options });
    expect(listener.received).toHaveLength(1);
    await listener.negotiated();
    await talker.execute("job-dismiss", { id: "j" });
    expect(listener.transcript()).toMatchInlineSnapshot(`
      "
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"null"}}
      "
    `);
  });

  it("says the version that package.json says", () => {
    const { name, version } = JSON.parse(readFileSync("package.json", "utf8"));
    expect(VERSION.package).toBe(`${name} ${version}`);
  });
});

describe("several monitors", () => {
  it("each get their own replies, and all get the events", async () => {
    const world = await testEngine();
    const one = await new Conversation(world).negotiated();
    const two = await new Conversation(world).negotiated();
    const options = { driver: "memory", name: "m", size: 0 };
    await one.execute("blockdev-create", { "job-id": "j", options });
    await world.clock.advance(0);
    await two.execute("job-dismiss", { id: "j" });
    expect(one.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"blockdev-create","arguments":{"job-id":"j","options":{"driver":"memory","name":"m","size":0}}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"waiting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"pending"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"concluded"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"null"}}
      "
    `);
    expect(two.transcript()).toMatchInlineSnapshot(`
      "
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"running"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"waiting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"pending"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"concluded"}}
      -> {"execute":"job-dismiss","arguments":{"id":"j"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"null"}}
      <- {"return":{}}
      "
    `);
  });

  it("stamp an event with one and the same time", async () => {
    const world = await testEngine();
    const one = await new Conversation(world).negotiated();
    const two = await new Conversation(world).negotiated();
    await world.clock.advance(1234.5);
    const options = { driver: "memory", name: "m", size: 0 };
    await one.execute("blockdev-create", { "job-id": "j", options });
    const created = one.received.find(({ event }) => event !== undefined)!;
    expect(created["timestamp"]).toEqual({ seconds: 1577836801, microseconds: 234500 });
    expect(two.received).toContainEqual(created);
  });
});
