/** What a monitor does with what comes in, besides running it: waiting, holding back, refusing. */

import { describe, expect, it } from "vitest";
import { Conversation, conversation, testEngine, type Wire } from "./conversation.ts";

async function open({ canHoldBack = true } = {}) {
  const { engine, clock } = await testEngine();
  const replies: Wire[] = [];
  const told = { ready: 0 };
  const monitor = engine.openMonitor(
    (message) => replies.push(message as Wire),
    canHoldBack ? () => told.ready++ : undefined,
  );
  return { engine, clock, monitor, replies, told };
}

function request(execute: string, id?: unknown, args?: object): string {
  return JSON.stringify({
    execute,
    ...(args && { arguments: args }),
    ...(id !== undefined && { id }),
  });
}

const OOB = request("qmp_capabilities", "caps", { enable: ["oob"] });

describe("a monitor whose input can be held back", () => {
  it("takes one request at a time, and reads on when that is answered", async () => {
    const { clock, monitor, replies, told } = await open();
    const text = [
      request("qmp_capabilities", 0),
      ...[1, 2, 3].map((id) => request("query-jobs", id)),
    ];
    expect(monitor.receiveText(text.join("\n"))).toBe(false);
    expect(replies).toHaveLength(1);
    await clock.advance(0);
    expect(replies.map(({ id }) => id)).toEqual([undefined, 0, 1, 2, 3]);
    expect(told.ready).toBe(1);
    expect(monitor.receiveText("\n")).toBe(true);
  });

  it("takes eight with oob, and answers what is to be out of band at once", async () => {
    const { clock, monitor, replies } = await open();
    monitor.receiveText(OOB);
    await clock.advance(0);
    replies.length = 0;
    const jobs = (from: number, to: number) =>
      Array.from({ length: to - from }, (_, i) => request("query-jobs", from + i)).join("");
    expect(monitor.receiveText(`${jobs(0, 8)}{"exec-oob":"query-jobs","id":"oob"}`)).toBe(true);
    expect(replies).toMatchObject([{ error: { class: "GenericError" }, id: "oob" }]);
    // One runs, eight wait.
    expect(monitor.receiveText(jobs(8, 10))).toBe(false);
    await clock.advance(0);
    expect(replies.slice(1).map(({ id }) => id)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  it("answers what it held back, too, when the engine stops", async () => {
    const { engine, monitor, replies, told } = await open();
    expect(monitor.receiveText([1, 2, 3].map((id) => request("query-jobs", id)).join(""))).toBe(
      false,
    );
    engine.stop(new Error("a bug"));
    expect(replies.slice(1)).toMatchObject([1, 2, 3].map((id) => ({ id, error: {} })));
    expect(told.ready).toBe(1);
  });

  it("forgets what it held back when its client is gone", async () => {
    const { clock, engine, monitor, replies } = await open();
    monitor.receiveText([0, 1].map((id) => request("qmp_capabilities", id)).join(""));
    engine.closeMonitor(monitor);
    monitor.receiveText(request("query-jobs"));
    await clock.advance(0);
    expect(replies).toHaveLength(1);
  });
});

describe("exec-oob", () => {
  it("is unexpected until oob is enabled; then it is known, and no command allows it", async () => {
    const qmp = await conversation();
    await qmp.say('{"exec-oob": "qmp_capabilities", "id": 1}');
    await qmp.say('{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}');
    await qmp.say('{"exec-oob": "query-jobs", "id": 2}');
    await qmp.say('{"exec-oob": "no-such-command", "id": 3}');
    await qmp.say('{"exec-oob": "query-jobs", "arguments": {"x": 1}, "id": 4}');
    await qmp.say('{"exec-oob": 1, "id": 5}');
    await qmp.say('{"exec-oob": "query-jobs", "arguments": [], "id": 6}');
    await qmp.say('{"exec-oob": "query-jobs", "execute": "query-jobs", "id": 7}');
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      <- {"QMP":{"version":{"qemu":{"major":10,"minor":1,"micro":0},"package":"blocktab 0.1.0"},"capabilities":["oob"]}}
      -> {"exec-oob": "qmp_capabilities", "id": 1}
      <- {"error":{"class":"GenericError","desc":"QMP input member 'exec-oob' is unexpected"},"id":1}
      -> {"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}
      <- {"return":{}}
      -> {"exec-oob": "query-jobs", "id": 2}
      <- {"error":{"class":"GenericError","desc":"The command 'query-jobs' cannot be executed out of band"},"id":2}
      -> {"exec-oob": "no-such-command", "id": 3}
      <- {"error":{"class":"CommandNotFound","desc":"The command 'no-such-command' has not been found"},"id":3}
      -> {"exec-oob": "query-jobs", "arguments": {"x": 1}, "id": 4}
      <- {"error":{"class":"GenericError","desc":"The command 'query-jobs' cannot be executed out of band"},"id":4}
      -> {"exec-oob": 1, "id": 5}
      <- {"error":{"class":"GenericError","desc":"QMP input member 'exec-oob' must be a string"},"id":5}
      -> {"exec-oob": "query-jobs", "arguments": [], "id": 6}
      <- {"error":{"class":"GenericError","desc":"QMP input member 'arguments' must be an object"},"id":6}
      -> {"exec-oob": "query-jobs", "execute": "query-jobs", "id": 7}
      <- {"error":{"class":"GenericError","desc":"QMP input member 'execute' clashes with 'exec-oob'"},"id":7}
      "
    `);
  });
});

describe("a message that comes as an object", () => {
  it("may be anything: what is not JSON is refused, with the id where that is", async () => {
    const { clock, monitor, replies } = await open({ canHoldBack: false });
    const cycle: Record<string, unknown> = { execute: "query-jobs", id: "cycle" };
    cycle["arguments"] = cycle;
    const wide: unknown[] = [];
    for (let i = 0; i < 30; i++) wide.push([...wide]);
    const bad: unknown[] = [
      undefined,
      Number.NaN,
      new Map(),
      new Date(),
      Symbol("x"),
      () => {},
      cycle,
      { execute: "query-jobs", id: "map", arguments: { x: new Map() } },
      { execute: "query-jobs", id: "nan", arguments: { x: Number.NaN } },
      { execute: "query-jobs", id: Number.POSITIVE_INFINITY },
      { execute: "query-jobs", id: "bigint", arguments: { x: 2n ** 64n } },
      { execute: "query-jobs", id: "sparse", arguments: { x: new Array(2 ** 32 - 1) } },
      { execute: "query-jobs", id: "wide", arguments: { x: wide } },
      { execute: "query-jobs", id: "buffer", arguments: { x: new Uint8Array(1000) } },
    ];
    monitor.receive({ execute: "qmp_capabilities" });
    for (const message of bad) monitor.receive(message);
    monitor.receive({ execute: "query-jobs", id: 2n ** 53n + 1n, arguments: undefined });
    await clock.advance(0);
    const errors = replies.slice(2, -1);
    expect(errors.map((reply) => (reply["error"] as { class: string }).class)).toEqual(
      bad.map(() => "GenericError"),
    );
    expect(errors.map(({ id }) => id)).toEqual(
      bad.map((message) => {
        const id = (message as { id?: unknown } | undefined)?.id;
        return typeof id === "string" ? id : undefined;
      }),
    );
    expect(replies.at(-1)).toEqual({ return: [], id: 2n ** 53n + 1n });
  });
});

describe("an integer", () => {
  it("that is not exact is refused by name, and a float is none", async () => {
    const qmp = await new Conversation(await testEngine()).negotiated();
    const speed = (value: string) =>
      qmp.say(
        `{"execute": "block-job-set-speed", "arguments": {"device": "x", "speed": ${value}}}`,
      );
    await speed("9007199254740993");
    await speed("-9223372036854775808");
    await speed("18446744073709551616");
    await speed("1.0");
    await speed("1e3");
    await speed("-0");
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute": "block-job-set-speed", "arguments": {"device": "x", "speed": 9007199254740993}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'speed' expects a whole number within 2^53; got 9007199254740993"}}
      -> {"execute": "block-job-set-speed", "arguments": {"device": "x", "speed": -9223372036854775808}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'speed' expects a whole number within 2^53; got -9223372036854775808"}}
      -> {"execute": "block-job-set-speed", "arguments": {"device": "x", "speed": 18446744073709551616}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'speed' expects a whole number within 2^53; got 18446744073709552000"}}
      -> {"execute": "block-job-set-speed", "arguments": {"device": "x", "speed": 1.0}}
      <- {"error":{"class":"GenericError","desc":"Invalid parameter type for 'speed', expected: integer"}}
      -> {"execute": "block-job-set-speed", "arguments": {"device": "x", "speed": 1e3}}
      <- {"error":{"class":"GenericError","desc":"Invalid parameter type for 'speed', expected: integer"}}
      -> {"execute": "block-job-set-speed", "arguments": {"device": "x", "speed": -0}}
      <- {"error":{"class":"DeviceNotActive","desc":"Block job 'x' not found"}}
      "
    `);
  });
});
