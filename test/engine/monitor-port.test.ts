/** Monitors on ports, in the thread of their engine on Node; on a page: test/browser/engine/. */

import { describe, expect, it } from "vitest";
import { connectMonitor } from "../../src/engine/client.ts";
import { MonitorPort } from "../../src/engine/monitor-port.ts";
import { connectLocally, createNodeEngine } from "../../src/engine/node.ts";
import { monitorSuite } from "./monitors.ts";
import { RawMonitor } from "./raw-monitor.ts";
import { connected } from "./world.ts";

monitorSuite(async () => {
  const engine = await createNodeEngine();
  return { client: await connectLocally(engine), end: () => engine.close() };
});

describe("the end of a port", () => {
  it.each<[string, (port: MessagePort) => void]>([
    ["closed", (port) => port.close()],
    ["told to be", (port) => port.postMessage(null)],
  ])("%s is the end of its monitor", async (_how, end) => {
    const { engine } = await connected();
    const { port1, port2 } = new MessageChannel();
    const closed = new Promise<void>((resolve) => {
      const open = (send: (message: object) => void) => engine.openMonitor(send);
      new MonitorPort({ port: port2, options: {}, open, onClose: resolve });
    });
    const raw = new RawMonitor(port1);
    await raw.execute("qmp_capabilities");
    end(port1);
    await closed;
  });

  it("closes the devices of a client that goes without a word", async () => {
    const { engine, client } = await connected();
    await client.execute("blockdev-add", { driver: "memory", "node-name": "n", size: 512 });
    const options = { type: "message-port", id: "d", "node-name": "n" } as const;
    await client.execute("block-export-add", options);
    const [qmp, data] = [new MessageChannel(), new MessageChannel()];
    engine.connect({ qmp: qmp.port2, data: data.port2 });
    const opened = new Promise((resolve) => {
      data.port1.onmessage = resolve;
    });
    data.port1.postMessage({ id: 1, request: { op: "open", export: "d" } });
    await opened;
    const remove = () => client.execute("block-export-del", { id: "d" });
    await expect(remove()).rejects.toThrow(/in use/);
    data.port1.close();
    qmp.port1.close();
    await expect.poll(() => remove().then(() => "gone", String)).toBe("gone");
  });

  it("is told to every client and monitor when the engine is closed", async () => {
    const { client, engine } = await connected();
    const typed = await connectMonitor(await client.openMonitor());
    const raw = new RawMonitor(await client.openMonitor());
    const waits = [client.events().next(), typed.events().next()].map((wait) =>
      wait.catch((error) => error),
    );
    await engine.close();
    for (const wait of waits) expect(await wait).toMatchObject({ errno: "ENOMEDIUM" });
    await raw.until(() => raw.raw.includes(null));
    await expect(client.execute("query-jobs")).rejects.toMatchObject({ errno: "ENOMEDIUM" });
  });
});
