/** The examples of docs/client.md, as code that is compiled and run: see client-docs.test.ts. */

import { connectTab, DOMAIN_STATE, type SharedApi } from "../../src/domain/client.ts";
import { type Client, connectMonitor, QmpError } from "../../src/engine/client.ts";
import { connectSocket } from "../../src/engine/node-socket.ts";

export async function makeDisk(client: Client) {
  await client.execute("blockdev-add", { driver: "memory", "node-name": "disk", size: 1048576 });
  await client.execute("block-export-add", {
    type: "message-port",
    id: "d",
    "node-name": "disk",
    writable: true,
  });
  const device = await client.openDevice("d");
  await device.write(0, new TextEncoder().encode("hello"));
}

export async function handleErrors(client: Client) {
  try {
    await client.execute("blockdev-del", { "node-name": "nobody" });
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    console.log(error.class, error.desc);
  }
}

export async function followEvents(client: Client) {
  for await (const event of client.events("JOB_STATUS_CHANGE", "BLOCK_JOB_ERROR")) {
    if (event.event === "BLOCK_JOB_ERROR") console.log(event.data.operation, event.data.action);
    else if (event.data.status === "concluded") break;
  }
}

export async function runJob(client: Client) {
  const options = { driver: "memory", name: "new", size: 512 } as const;
  const started = client.execute("blockdev-create", { "job-id": "create", options });
  const ended = client.waitForJob("create", "concluded");
  await started;
  const { error } = await ended;
  if (error !== undefined) console.log(error);
  await client.execute("job-dismiss", { id: "create" });
}

export async function giveUp(client: Client) {
  const signal = AbortSignal.timeout(10_000);
  const nodes = await client.execute("query-named-block-nodes", { flat: true }, { signal });
  console.log(nodes.map((node) => node["node-name"]));
}

export async function rawMonitor(client: Client) {
  const port = await client.openMonitor();
  port.onmessage = ({ data }) => {
    if (data.QMP) port.postMessage({ execute: "qmp_capabilities", id: 1 });
    else if (data.id === 1) port.postMessage({ execute: "query-jobs", id: 2 });
    else if (data.id === 2) port.postMessage(null);
  };
}

export async function textMonitor(client: Client) {
  const port = await client.openMonitor({ text: true });
  port.onmessage = ({ data }) => console.log(data);
  port.postMessage('{"execute": "qmp_capabilities"}{"execute":');
  port.postMessage(' "query-jobs"}');
}

export async function handOver(client: Client, worker: { postMessage: Worker["postMessage"] }) {
  const port = await client.openMonitor();
  worker.postMessage(port, [port]);
}

export function takeOver(scope: {
  onmessage: ((event: MessageEvent<MessagePort>) => void) | null;
}) {
  scope.onmessage = async ({ data: port }) => {
    const qmp = await connectMonitor(port);
    console.log(await qmp.execute("query-block-jobs"));
    qmp.close();
  };
}

export function withoutClient(worker: { postMessage: Worker["postMessage"] }) {
  const { port1, port2 } = new MessageChannel();
  worker.postMessage({ type: "monitor", port: port2 }, [port2]);
  return port1;
}

export async function sharedTab() {
  const { client, domains } = await connectTab({ onState: ({ text }) => console.log(text) });
  const disk = {
    target: "vda",
    format: "qcow2",
    source: { driver: "opfs", filename: "disk.qcow2" },
  } as const;
  const domain = await domains.define({ name: "demo", disks: [disk] });
  if ((await domain.info()).state !== DOMAIN_STATE.RUNNING) await domain.create();
  await domain.blockPull("vda");
  const [{ device }] = (await domain.info()).disks;
  if (device !== null) await (await client.openDevice(device)).flush();
}

export async function whatHasBecome(client: SharedApi) {
  for (const { name, outcome, text } of await client.execute("x-query-recovery")) {
    console.log(name, outcome, text);
  }
  for (const { id, began, outcome } of await client.execute("x-query-job-history")) {
    console.log(id, outcome);
    await client.execute("x-job-history-dismiss", { id, began });
  }
}

export async function overSocket() {
  const qmp = await connectSocket("/run/user/1000/qmp.sock");
  console.log(await qmp.execute("query-version"));
  qmp.close();
}
