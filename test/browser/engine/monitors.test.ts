/**
 * Monitors of an engine in its worker: all that holds for them anywhere (test/engine/monitors.ts), and
 * what only a browser has: ports that move on to other workers and windows, and pages that go away.
 */

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Client, connect, connectMonitor } from "../../../src/engine/client.ts";
import { monitorSuite } from "../../engine/monitors.ts";
import { RawMonitor } from "../../engine/raw-monitor.ts";

monitorSuite(async () => {
  const client = await connect();
  return { client, end: () => client.close() };
});

describe("in a browser", () => {
  let client: Client;
  beforeEach(async () => {
    client = await connect();
  });
  afterEach(() => client.close());

  it("a monitor's port can be handed on to another worker", async () => {
    // Negotiates, asks for the version, and tells.
    const source = `onmessage = ({ data: port }) => {
      port.onmessage = ({ data }) => {
        if (data.QMP) port.postMessage({ execute: "qmp_capabilities", id: 1 });
        if (data.id === 1) port.postMessage({ execute: "query-version", id: 2 });
        if (data.id === 2) postMessage(data.return);
      };
    };`;
    const worker = new Worker(URL.createObjectURL(new Blob([source])));
    const port = await client.openMonitor();
    const told = new Promise((resolve) => {
      worker.onmessage = ({ data }) => resolve(data);
    });
    worker.postMessage(port, [port]);
    expect(await told).toEqual(await client.execute("query-version"));
    worker.terminate();
  });

  it("a port may change hands after the negotiation, and nothing is lost", async () => {
    const port = await client.openMonitor();
    const raw = new RawMonitor(port);
    await raw.execute("qmp_capabilities");
    port.onmessage = null;
    const { port1, port2 } = new MessageChannel();
    port1.postMessage(null, [port]);
    const moved = await new Promise<MessagePort>((resolve) => {
      port2.onmessage = ({ ports }) => resolve(ports[0]!);
    });
    const again = new RawMonitor(moved);
    expect(await again.execute("query-jobs")).toEqual({ return: [] });
  });

  it("whoever has the worker opens monitors without a client", async () => {
    const { port1, port2 } = new MessageChannel();
    client.worker!.postMessage({ type: "monitor", port: port2, text: true }, [port2]);
    const raw = new RawMonitor(port1);
    expect(await raw.say('{"execute": "qmp_capabilities"}')).toEqual({ return: {} });
    // One with a port that is none harms nobody.
    for (const port of [null, 5, {}]) client.worker!.postMessage({ type: "monitor", port });
    expect(await raw.say('{"execute": "query-jobs"}')).toEqual({ return: [] });
    expect(await client.execute("query-jobs")).toEqual([]);
  });

  it("what a window had open is closed when it goes away", async () => {
    await client.execute("blockdev-add", { driver: "memory", "node-name": "n", size: 512 });
    const options = { type: "message-port", id: "d", "node-name": "n" } as const;
    await client.execute("block-export-add", options);
    const frame = document.createElement("iframe");
    document.body.append(frame);
    const [qmp, data] = [new MessageChannel(), new MessageChannel()];
    const engine = { type: "connect", qmp: qmp.port2, data: data.port2 };
    client.worker!.postMessage(engine, [qmp.port2, data.port2]);
    // The window holds on to the ports, and opens the device.
    const opened = new Promise((resolve) => addEventListener("message", resolve, { once: true }));
    const script = frame.contentDocument!.createElement("script");
    script.textContent = `onmessage = ({ ports: [qmp, data] }) => {
      globalThis.ports = [qmp, data];
      data.onmessage = ({ data }) => parent.postMessage(data, "*");
      data.postMessage({ id: 1, request: { op: "open", export: "d" } });
    };`;
    frame.contentDocument!.body.append(script);
    frame.contentWindow!.postMessage(null, "*", [qmp.port1, data.port1]);
    await opened;
    const remove = () => client.execute("block-export-del", { id: "d" });
    await expect(remove()).rejects.toThrow(/in use/);
    frame.remove();
    // Noticed when the worker collects its garbage, so there must be some.
    const litterer = new RawMonitor(await client.openMonitor({ text: true }));
    const litter = JSON.stringify({ execute: "query-version", id: "litter ".repeat(100_000) });
    const removed = async () => {
      await litterer.say(litter);
      litterer.received.length = 0;
      litterer.raw.length = 0;
      return remove().then(() => "gone", String);
    };
    await expect.poll(removed, { timeout: 50_000 }).toBe("gone");
  });

  it("clients of a worker that its owner ends are told", async () => {
    const other = await connect({ worker: client.worker! });
    const typed = await connectMonitor(await client.openMonitor());
    const waits = [other.events().next(), typed.events().next()].map((wait) =>
      wait.catch((error) => error),
    );
    await client.close();
    for (const wait of waits)
      expect(await wait).toMatchObject({ name: "QmpError", errno: "ENOMEDIUM" });
    await expect(other.execute("query-jobs")).rejects.toMatchObject({ errno: "ENOMEDIUM" });
    await other.close();
  });

  it("an engine that does not come up can be given up", async () => {
    const silent = new Worker(URL.createObjectURL(new Blob([""])));
    const controller = new AbortController();
    const connecting = connect({ worker: silent, signal: controller.signal });
    controller.abort();
    await expect(connecting).rejects.toMatchObject({ errno: "ECANCELED" });
    silent.terminate();
  });
});
