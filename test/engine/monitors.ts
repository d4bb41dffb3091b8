/**
 * What holds for monitors on ports, wherever the engine runs: in the same thread of Node, or in the
 * worker of a page.
 */

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Client, connectMonitor } from "../../src/engine/client.ts";
import { RawMonitor } from "./raw-monitor.ts";

const notNegotiated = { error: { class: "CommandNotFound" } };

/** @param start a client of an engine of its own, which the client's end() ends */
export function monitorSuite(start: () => Promise<{ client: Client; end: () => Promise<void> }>) {
  let client: Client;
  let end: () => Promise<void>;
  beforeEach(async () => {
    ({ client, end } = await start());
  });
  afterEach(() => end());

  async function monitor(options: { text?: boolean } = {}): Promise<RawMonitor> {
    return new RawMonitor(await client.openMonitor(options));
  }

  async function negotiated(options: { text?: boolean } = {}): Promise<RawMonitor> {
    const opened = await monitor(options);
    const request = { execute: "qmp_capabilities" };
    await opened.say(options.text ? JSON.stringify(request) : request);
    return opened;
  }

  /** Sets off events. */
  async function job(id: string): Promise<void> {
    const options = { driver: "memory", name: id, size: 512 } as const;
    await client.execute("blockdev-create", { "job-id": id, options });
    await client.waitForJob(id, "concluded");
    const ended = client.waitForJob(id, "null");
    await client.execute("job-dismiss", { id });
    await ended;
  }

  describe("several monitors", () => {
    it("are each greeted, and negotiate each for itself", async () => {
      const [one, two] = [await monitor(), await monitor()];
      expect(await one.execute("qmp_capabilities")).toEqual({ return: {} });
      expect(await one.execute("query-jobs")).toEqual({ return: [] });
      expect(await two.execute("query-jobs")).toMatchObject(notNegotiated);
      expect(one.received[0]).toMatchObject({ QMP: { version: { qemu: { major: 10 } } } });
      expect(two.received[0]).toEqual(one.received[0]);
      expect(await two.execute("qmp_capabilities")).toEqual({ return: {} });
      expect(await two.execute("query-jobs")).toEqual({ return: [] });
    });

    it("hear the events from their own negotiation on", async () => {
      const [one, two] = [await negotiated(), await monitor()];
      await job("a");
      expect(await two.execute("query-jobs")).toMatchObject(notNegotiated);
      await two.execute("qmp_capabilities");
      await job("b");
      await one.until(() => one.events.length >= 12);
      await two.until(() => two.events.length >= 6);
      const shown = (of: RawMonitor) => of.events.map(({ event, ...rest }) => JSON.stringify(rest));
      expect(shown(two)).toEqual(shown(one).slice(6));
      expect(shown(two).every((event) => event.includes('"id":"b"'))).toBe(true);
    });

    it("are answered while another one is flooded", async () => {
      const [calm, flood] = [await negotiated(), await negotiated()];
      const count = 5000;
      for (let id = 0; id < count; id++) flood.port.postMessage({ execute: "query-version", id });
      for (let round = 0; round < 20; round++) {
        expect(await calm.execute("query-jobs")).toEqual({ return: [] });
      }
      // Each of them once: done, or refused because too many wait.
      await flood.until(() => flood.replies.length > count);
      const ids = flood.replies.slice(1).map(({ id }) => id as number);
      expect(new Set(ids).size).toBe(count);
      expect(flood.replies.filter((reply) => reply.return === undefined)).toEqual(
        flood.replies.filter((reply) => reply.error?.desc.includes("are waiting")),
      );
      expect(await flood.execute("query-jobs")).toEqual({ return: [] });
    });

    it("may go in the midst of a command, which comes to its end", async () => {
      const [one, two] = [await negotiated(), await negotiated()];
      const node = { driver: "memory", "node-name": "n", size: 512 };
      one.port.postMessage({ execute: "blockdev-add", arguments: node });
      one.port.postMessage(null);
      one.port.close();
      await expect
        .poll(async () => (await two.execute("query-named-block-nodes")).return)
        .toMatchObject([{ "node-name": "n" }]);
    });
  });

  describe("a monitor", () => {
    it.each(garbage())("answers %s with an error, and goes on", async (_name, message) => {
      const one = await negotiated();
      const reply = await one.say(message());
      expect(reply).toMatchObject({ error: { class: "GenericError" } });
      expect(await one.say({ execute: "query-jobs", id: "still" })).toEqual({
        return: [],
        id: "still",
      });
    });

    it("repeats an id that can be, and says so of one that cannot", async () => {
      const one = await negotiated();
      const id = { list: [1, null, "x"] };
      expect(await one.say({ execute: "query-jobs", id })).toEqual({ return: [], id });
      const { port1, port2 } = new MessageChannel();
      const reply = await one.say({ execute: "query-jobs", id: port1 }, [port1]);
      expect(reply).toMatchObject({ error: { class: "GenericError" } });
      port2.close();
      expect(await one.execute("query-jobs")).toEqual({ return: [] });
    });

    it("takes text in pieces, as from a socket, and answers in lines", async () => {
      const one = await negotiated({ text: true });
      const text = `{"execute": "query-jobs", "id": "é"}{'execute': 'query-version'} {"execute"\n`;
      for (const piece of text) one.port.postMessage(piece);
      await one.until(() => one.replies.length >= 3);
      one.port.postMessage(': "query-jobs", "id": 3}');
      await one.until(() => one.replies.length >= 4);
      expect(one.replies.slice(1)).toMatchObject([
        { return: [], id: "é" },
        { return: { qemu: {} } },
        { return: [], id: 3 },
      ]);
      for (const line of one.raw) expect(line).toMatch(/^\{.*\}\r\n$/);
    });

    it("in text mode answers what is no text, or no JSON, with an error, and goes on", async () => {
      const one = await negotiated({ text: true });
      for (const message of [{ execute: "query-jobs" }, 5, '{"execute": nonsense}\n']) {
        expect(await one.say(message)).toMatchObject({ error: { class: "GenericError" } });
      }
      expect(await one.say('{"execute": "query-jobs"}')).toEqual({ return: [] });
    });

    it("can be spoken to by the typed client, which hangs up alone", async () => {
      const typed = await connectMonitor(await client.openMonitor());
      const events = typed.events("JOB_STATUS_CHANGE");
      await job("a");
      expect((await events.next()).value?.data).toEqual({ id: "a", status: "created" });
      const waiting = events.return();
      typed.close();
      await waiting;
      await expect(typed.execute("query-jobs")).rejects.toMatchObject({ errno: "ENOMEDIUM" });
      expect(await client.execute("query-jobs")).toEqual([]);
    });
  });
}

/** Messages that are no requests, made anew for each test. */
function garbage(): [string, () => unknown][] {
  const cycle: { execute: string; self?: object } = { execute: "query-jobs" };
  cycle.self = cycle;
  return [
    ["a number", () => 5],
    ["a bigint", () => 5n],
    ["text", () => '{"execute": "query-jobs"}'],
    ["a list", () => [{ execute: "query-jobs" }]],
    ["an empty object", () => ({})],
    ["a Map", () => new Map([["execute", "query-jobs"]])],
    ["a date", () => new Date(0)],
    ["an error", () => new Error("boo")],
    ["bytes", () => new Uint8Array(1 << 20)],
    ["a command that is a number", () => ({ execute: 5 })],
    ["a member of no meaning", () => ({ execute: "query-jobs", more: 1 })],
    ["a cycle", () => cycle],
    ["arguments that are a list", () => ({ execute: "query-jobs", arguments: [] })],
    ["arguments of no meaning", () => ({ execute: "query-jobs", arguments: { x: cycle } })],
    ["NaN for a size", () => add({ size: Number.NaN })],
    ["a bigint beyond all sizes", () => add({ size: 2n ** 70n })],
  ];
}

function add(members: object): object {
  const node = { driver: "memory", "node-name": "n", ...members };
  return { execute: "blockdev-add", arguments: node };
}
