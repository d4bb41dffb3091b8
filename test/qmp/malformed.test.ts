/** What comes in that is no proper request: refused one by one, and nothing else is harmed. */

import { describe, expect, it } from "vitest";
import { QUEUE_REQUESTS_MAX } from "../../src/qmp/monitor.ts";
import { conversation, testEngine, type Wire } from "./conversation.ts";

describe("a request", () => {
  it("has its members checked, and keeps its id in the reply whatever it is", async () => {
    const qmp = await (await conversation()).negotiated();
    await qmp.say('{"arguments": {}, "id": 1}');
    await qmp.say('{"execute": 1, "id": "two"}');
    await qmp.say('{"execute": "query-jobs", "arguments": [], "id": [3, {"x": null}]}');
    await qmp.say('{"execute": "query-jobs", "control": true, "id": null}');
    await qmp.say('{"exec-oob": "query-jobs", "id": false}');
    await qmp.say('{"execute": "no-such-command", "id": {"b": 1, "a": 2}}');
    await qmp.say('{"execute": "__proto__"}');
    await qmp.say('{"execute": "query-jobs", "id": 0.5}');
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"arguments": {}, "id": 1}
      <- {"error":{"class":"GenericError","desc":"QMP input lacks member 'execute'"},"id":1}
      -> {"execute": 1, "id": "two"}
      <- {"error":{"class":"GenericError","desc":"QMP input member 'execute' must be a string"},"id":"two"}
      -> {"execute": "query-jobs", "arguments": [], "id": [3, {"x": null}]}
      <- {"error":{"class":"GenericError","desc":"QMP input member 'arguments' must be an object"},"id":[3,{"x":null}]}
      -> {"execute": "query-jobs", "control": true, "id": null}
      <- {"error":{"class":"GenericError","desc":"QMP input member 'control' is unexpected"},"id":null}
      -> {"exec-oob": "query-jobs", "id": false}
      <- {"error":{"class":"GenericError","desc":"QMP input member 'exec-oob' is unexpected"},"id":false}
      -> {"execute": "no-such-command", "id": {"b": 1, "a": 2}}
      <- {"error":{"class":"CommandNotFound","desc":"The command 'no-such-command' has not been found"},"id":{"b":1,"a":2}}
      -> {"execute": "__proto__"}
      <- {"error":{"class":"CommandNotFound","desc":"The command '__proto__' has not been found"}}
      -> {"execute": "query-jobs", "id": 0.5}
      <- {"return":[],"id":0.5}
      "
    `);
  });

  it("is an object", async () => {
    const qmp = await (await conversation()).negotiated();
    for (const text of ["[]", "1", '"x"', "null", "true"]) await qmp.say(text);
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> []
      <- {"error":{"class":"GenericError","desc":"QMP input must be a JSON object"}}
      -> 1
      <- {"error":{"class":"GenericError","desc":"QMP input must be a JSON object"}}
      -> "x"
      <- {"error":{"class":"GenericError","desc":"QMP input must be a JSON object"}}
      -> null
      <- {"error":{"class":"GenericError","desc":"QMP input must be a JSON object"}}
      -> true
      <- {"error":{"class":"GenericError","desc":"QMP input must be a JSON object"}}
      "
    `);
  });

  it("has its arguments checked by name and type", async () => {
    const qmp = await (await conversation()).negotiated();
    await qmp.execute("job-pause");
    await qmp.execute("job-pause", { id: 1 });
    await qmp.execute("job-pause", { id: null });
    await qmp.execute("job-pause", { id: "x", id2: "y" });
    await qmp.execute("query-jobs", { x: 1 });
    await qmp.execute("block-job-set-speed", { device: "x", speed: "1" });
    await qmp.execute("block-job-set-speed", { device: "x", speed: 1.5 });
    await qmp.execute("block-stream", { device: "x", "on-error": "retry" });
    await qmp.execute("blockdev-add", { "node-name": "x" });
    await qmp.execute("blockdev-add", { driver: "no-such-driver", "node-name": "x" });
    await qmp.execute("blockdev-add", { driver: "memory", "node-name": "x", bogus: 1 });
    await qmp.execute("blockdev-add", { driver: "memory", "node-name": "x", size: -1 });
    await qmp.execute("blockdev-create", { "job-id": "j", options: { size: 1 } });
    await qmp.execute("block-export-add", { type: "nbd", id: "e", "node-name": "x" });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"job-pause"}
      <- {"error":{"class":"GenericError","desc":"Parameter 'id' is missing"}}
      -> {"execute":"job-pause","arguments":{"id":1}}
      <- {"error":{"class":"GenericError","desc":"Invalid parameter type for 'id', expected: string"}}
      -> {"execute":"job-pause","arguments":{"id":null}}
      <- {"error":{"class":"GenericError","desc":"Invalid parameter type for 'id', expected: string"}}
      -> {"execute":"job-pause","arguments":{"id":"x","id2":"y"}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'id2' is unexpected"}}
      -> {"execute":"query-jobs","arguments":{"x":1}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'x' is unexpected"}}
      -> {"execute":"block-job-set-speed","arguments":{"device":"x","speed":"1"}}
      <- {"error":{"class":"GenericError","desc":"Invalid parameter type for 'speed', expected: integer"}}
      -> {"execute":"block-job-set-speed","arguments":{"device":"x","speed":1.5}}
      <- {"error":{"class":"GenericError","desc":"Invalid parameter type for 'speed', expected: integer"}}
      -> {"execute":"block-stream","arguments":{"device":"x","on-error":"retry"}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'on-error' does not accept value 'retry'; it takes 'report', 'ignore', 'enospc', 'stop', 'auto'"}}
      -> {"execute":"blockdev-add","arguments":{"node-name":"x"}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'driver' is missing"}}
      -> {"execute":"blockdev-add","arguments":{"driver":"no-such-driver","node-name":"x"}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'driver' does not accept value 'no-such-driver'; it takes 'memory', 'copy-on-read', 'tiny'"}}
      -> {"execute":"blockdev-add","arguments":{"driver":"memory","node-name":"x","bogus":1}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'bogus' is unexpected"}}
      -> {"execute":"blockdev-add","arguments":{"driver":"memory","node-name":"x","size":-1}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'size' expects >=0; got -1"}}
      -> {"execute":"blockdev-create","arguments":{"job-id":"j","options":{"size":1}}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'options.driver' is missing"}}
      -> {"execute":"block-export-add","arguments":{"type":"nbd","id":"e","node-name":"x"}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'type' does not accept value 'nbd'; it takes 'message-port'"}}
      "
    `);
  });
});

describe("text", () => {
  it("that is no JSON costs itself and nothing else", async () => {
    const qmp = await (await conversation()).negotiated();
    await qmp.say('{"execute": }');
    await qmp.say('{"execute" "query-jobs"}');
    await qmp.say("nonsense");
    await qmp.say("}");
    await qmp.say('{"execute": "query-jobs\n');
    await qmp.say("{'execute': 'query-jobs', 'id': 'it\\'s \"quoted\"'}");
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute": }
      <- {"error":{"class":"GenericError","desc":"JSON parse error, expecting value"}}
      -> {"execute" "query-jobs"}
      <- {"error":{"class":"GenericError","desc":"JSON parse error, missing : in object pair"}}
      -> nonsense
      <- {"error":{"class":"GenericError","desc":"JSON parse error, invalid keyword 'nonsense'"}}
      -> }
      <- {"error":{"class":"GenericError","desc":"JSON parse error, expecting value"}}
      -> {"execute": "query-jobs

      <- {"error":{"class":"GenericError","desc":"JSON parse error, stray '\\"query-jobs\\n'"}}
      -> {'execute': 'query-jobs', 'id': 'it\\'s "quoted"'}
      <- {"return":[],"id":"it's \\"quoted\\""}
      "
    `);
  });

  it("may hold several requests, and a request several pieces", async () => {
    const { engine, clock } = await testEngine();
    const replies: Wire[] = [];
    const monitor = engine.openMonitor((message) => replies.push(message as Wire));
    const text =
      '{"execute":"qmp_capabilities","id":1}{"execute":"query-jobs","id":2} {"execute":\n';
    for (const character of `${text}"query-jobs","id":3}`) monitor.receiveText(character);
    await clock.advance(0);
    expect(replies.map(({ id }) => id)).toEqual([undefined, 1, 2, 3]);
  });
});

describe("requests", () => {
  it("are answered in the order in which they came, also those that are refused", async () => {
    const { engine, clock } = await testEngine();
    const replies: Wire[] = [];
    const monitor = engine.openMonitor((message) => replies.push(message as Wire));
    monitor.receive({ execute: "qmp_capabilities", id: 0 });
    const add = { driver: "memory", "node-name": "m", size: 4096 };
    monitor.receive({ execute: "blockdev-add", arguments: add, id: 1 });
    monitor.receiveText("{]");
    monitor.receive({ execute: "blockdev-add", arguments: add, id: 3 });
    monitor.receive({ execute: "blockdev-del", arguments: { "node-name": "m" }, id: 4 });
    monitor.receive({ execute: "no-such-command", id: 5 });
    await clock.advance(0);
    expect(replies.map((reply) => [reply.id, "return" in reply])).toEqual([
      [undefined, false], // the greeting
      [0, true],
      [1, true],
      [undefined, false],
      [3, false],
      [4, true],
      [5, false],
    ]);
  });

  it("that pile up are refused, and those that were taken are answered", async () => {
    const { engine, clock } = await testEngine();
    const replies: Wire[] = [];
    const monitor = engine.openMonitor((message) => replies.push(message as Wire));
    monitor.receive({ execute: "qmp_capabilities", id: -1 });
    for (let id = 0; id <= QUEUE_REQUESTS_MAX; id++) monitor.receive({ execute: "query-jobs", id });
    await clock.advance(0);
    const refused = replies.filter((reply) => "error" in reply);
    expect(refused.map(({ id }) => id)).toEqual([QUEUE_REQUESTS_MAX]);
    expect(replies.filter((reply) => "return" in reply)).toHaveLength(QUEUE_REQUESTS_MAX + 1);
  });
});
