/** A page's end and the driver's: the same calls, the same errors, the same events. */

import { afterEach, beforeEach, expect, it } from "vitest";
import { Connection } from "../../src/domain/domain.ts";
import { DomainClient } from "../../src/domain/domain-client.ts";
import { DomainPort } from "../../src/domain/domain-port.ts";
import { LIFECYCLE } from "../../src/domain/enums.ts";
import type { DomainError } from "../../src/domain/errors.ts";
import type { DomainEvent } from "../../src/domain/events.ts";
import { BLOCK_COPY, BLOCK_PULL } from "../../src/domain/flags.ts";
import { localPorts } from "../../src/engine/local-port.ts";
import { QmpError } from "../../src/engine/qmp-error.ts";
import {
  disk,
  ended,
  image,
  makeImage,
  makeWorld,
  refusal,
  running,
  until,
  type World,
} from "./world.ts";

let world: World;
beforeEach(async () => {
  world = await makeWorld();
});
afterEach(() => world.end());

/** Something happens as such a command is sent. @returns undoes that */
function before(command: string, happens: () => void): () => void {
  const { client } = world;
  const { execute } = client;
  client.execute = (async (...args: Parameters<typeof execute>) => {
    if (args[0] === command) happens();
    return execute.apply(client, args);
  }) as typeof execute;
  return () => {
    client.execute = execute;
  };
}

function connect() {
  const [port, other] = localPorts();
  const bugs: unknown[] = [];
  const served = new DomainPort({
    port: other,
    driver: world.driver,
    onBug: (bug) => bugs.push(bug),
  });
  const client = new DomainClient(port);
  const events: DomainEvent[] = [];
  client.subscribe((event) => events.push(event));
  return { client, connection: new Connection(client), events, served, port, bugs };
}

it("answers a page as the driver answers those beside it, and tells it all events", async () => {
  await makeImage(world, "base", { content: { 1: 1 } });
  await makeImage(world, "top", { backing: "base" });
  const { connection, events, bugs } = connect();
  const definition = { name: "demo", disks: [disk("vda", "top", "base")] };
  const domain = await world.run(connection.define(definition));
  await world.run(domain.create());
  expect(await world.run(connection.listAllDomains())).toEqual([await world.run(domain.info())]);
  expect(await refusal(world, domain.blockPull("vdz"))).toBe("INVALID_ARG");
  const missing = await world.run(connection.lookupByName("x").catch((error) => error));
  expect(missing).toMatchObject({ code: "NO_DOMAIN", number: 42 } satisfies Partial<DomainError>);
  await world.run(domain.blockPull("vda"));
  await until(world, ended("vda"));
  expect(events).toEqual(world.events);
  expect(events.filter(ended("vda"))).toHaveLength(1);
  expect(bugs).toEqual([]);
});

it("refuses what is no call, and goes on", async () => {
  const { connection, port, bugs } = connect();
  const junk = [
    null,
    7,
    {},
    { id: "a" },
    { id: 900, call: "toString", args: [] },
    { id: 901, call: "__proto__", args: [] },
    { id: 902, call: "blockPull", args: "vda" },
    { id: 903, call: "blockPull", args: ["demo"] },
    { id: 904, call: "define", args: [{ name: "x" }, 0] },
    { id: 905, call: "blockCopy", args: ["demo", "vda", {}, { speed: 1 }, 0] },
    { id: 906, call: "listAllDomains", args: [1] },
    { cancel: 12 },
  ];
  for (const message of junk) port.postMessage(message, []);
  expect(await world.run(connection.listAllDomains())).toEqual([]);
  expect(bugs).toEqual([]);
});

it("gives up a wait when its caller does, and the job goes on to its end", async () => {
  const domain = await running(world);
  const { connection } = connect();
  const flags = BLOCK_PULL.BANDWIDTH_BYTES;
  await world.run(domain.blockPull("vda", 1, flags));
  const abort = new AbortController();
  const wait = connection.domain("demo").blockJobAbort("vda", 0, { signal: abort.signal });
  abort.abort();
  expect(await refusal(world, wait)).toBe("OPERATION_ABORTED");
  const late = connection.domain("demo").blockJobAbort("vda", 0, { signal: abort.signal });
  expect(await refusal(world, late)).toBe("OPERATION_ABORTED");
});

it("stops a domain whose stop was called off, and one that has stopped half way", async () => {
  const domain = await running(world);
  const { connection, served, bugs } = connect();
  await world.run(domain.blockPull("vda", 1, BLOCK_PULL.BANDWIDTH_BYTES));
  const undo = before("job-cancel", () => served.close());
  const call = connection.domain("demo").destroy();
  expect(await refusal(world, call)).toBe("OPERATION_FAILED");
  undo();
  await until(world, (event) => event.event === "lifecycle" && event.type === LIFECYCLE.STOPPED);
  expect(bugs).toEqual([]);
  expect(await world.run(world.client.execute("query-named-block-nodes", {}))).toEqual([]);
  await world.run(domain.create());
  world.events.length = 0;
  // Of two the second finds nothing to stop.
  const both = await world.run(Promise.allSettled([domain.destroy(), domain.destroy()]));
  expect(both).toMatchObject([{ status: "fulfilled" }, { reason: { code: "OPERATION_INVALID" } }]);
  expect(world.events).toHaveLength(1);

  // The engine refuses something that it never refuses: a start fails, and cannot be taken back.
  const no = () => {
    throw new QmpError({ class: "GenericError", desc: "No" });
  };
  const undoBoth = [before("block-export-add", no), before("query-block-exports", no)];
  expect(await refusal(world, domain.create())).toBe("OPERATION_FAILED");
  for (const one of undoBoth.reverse()) one();
  expect(world.driver.entry("demo").record.state).toBe("starting");
  expect(await refusal(world, domain.create())).toBe("OPERATION_INVALID");
  await world.run(domain.destroy());
  await world.run(domain.create());
});

it("takes back an image that is being made when its caller hangs up", async () => {
  const domain = await running(world);
  const { connection, served } = connect();
  const undo = before("blockdev-create", () => served.close());
  const copy = connection.domain("demo").blockCopy("vda", image("copy"));
  expect(await refusal(world, copy)).toBe("OPERATION_FAILED");
  await world.clock.advance(1000);
  undo();
  expect(await world.run(world.client.execute("query-jobs"))).toEqual([]);
  expect(world.driver.entry("demo").record).toMatchObject({ jobs: [], leftovers: [] });
  expect(world.stores.has("copy")).toBe(false);
  await world.run(domain.blockCopy("vda", image("copy")));
});

it("fails all that waits when the other end goes", async () => {
  const { connection, served } = connect();
  await world.run(connection.listAllDomains());
  served.close();
  const call = connection.listAllDomains();
  expect(await refusal(world, call)).toBe("OPERATION_FAILED");
});

it("tells an end once, although two owners have told it", async () => {
  const [port, owner] = localPorts();
  const client = new DomainClient(port);
  const events: DomainEvent[] = [];
  client.subscribe((event) => events.push(event));
  const event = { event: "block-job-2", domain: "d", disk: "vda", type: 1, status: 0, serial: 4 };
  const backup = { event: "job-completed", domain: "d", serial: 4, stats: { type: 3 } };
  for (const ended of [event, backup]) {
    for (const one of [ended, ended, { ...ended, serial: 5 }])
      owner.postMessage({ event: one }, []);
    await world.clock.advance(0);
    expect(events.splice(0)).toHaveLength(2);
  }
});

it("refuses definitions that are none, naming what is wrong", async () => {
  const { connection } = connect();
  const source = { driver: "memory", name: "a" };
  const disks = [
    [
      { target: "vda", source },
      { target: "vda", source },
    ],
    [{ target: "../x", source }],
    [{ target: "vda" }],
    [{ target: "vda", source: { name: "a" } }],
    [{ target: "vda", source: { driver: "file", filename: "relative.img" } }],
    [{ target: "vda", source, format: "vhd" }],
    [{ target: "vda", source, cache: "none" }],
    // The top of a chain whose format has been forgotten would be taken for raw.
    [{ target: "vda", source, backingStore: image("b") }],
    [{ target: "vda", ...image("b", { source, backingStore: image("c") }) }],
  ];
  for (const list of disks) {
    const call = connection.define({ name: "demo", disks: list } as never);
    expect(await refusal(world, call)).toBe("XML_ERROR");
  }
  expect(await refusal(world, connection.define({ name: "a b", disks: [] }))).toBe("XML_ERROR");
  let deep: object | null = null;
  for (let i = 0; i < 300; i++) deep = { source, backingStore: deep };
  const chain = { name: "deep", disks: [{ target: "vda", ...deep }] };
  expect(await refusal(world, connection.define(chain as never))).toBe("XML_ERROR");
  expect(await world.run(connection.listAllDomains())).toEqual([]);
  const domain = await running(world);
  const relative = { source: { driver: "file", filename: "x" } };
  const copy = () => domain.blockCopy("vda", relative, {}, BLOCK_COPY.REUSE_EXT);
  expect(await refusal(world, copy())).toBe("INVALID_ARG");
  const { SHALLOW, REUSE_EXT } = BLOCK_COPY;
  for (const wrong of [
    image("a", image("b"), "raw"),
    { ...image("a", null, "raw"), dataStore: source },
  ]) {
    const shallow = domain.blockCopy("vda", wrong, {}, SHALLOW | REUSE_EXT);
    expect(await refusal(world, shallow)).toBe("INVALID_ARG");
  }
  expect(await refusal(world, domain.blockRebase("vda", "copy", 0, 8))).toBe("INVALID_ARG");
  expect(await refusal(world, domain.blockCopy("vda", image("a", image("b"))))).toBe("INVALID_ARG");
  expect(await refusal(world, domain.undefine())).toBe("OPERATION_INVALID");
  expect(await refusal(world, domain.create())).toBe("OPERATION_INVALID");
});

it("shuts down only what nobody uses", async () => {
  const domain = await running(world, { vda: ["a"], vdb: ["b"] });
  const { disks } = await world.run(domain.info());
  const open = (at: number) => world.run(world.client.openDevice(disks[at]!.device!));
  const device = await open(1);
  expect(await refusal(world, domain.shutdown())).toBe("OPERATION_INVALID");
  expect((await world.run(domain.info())).state).toBe(1);
  // The other one had been let go already.
  await world.run((await open(0)).close());
  await world.run(device.close());
  await world.run(domain.shutdown());
  expect((await world.run(domain.info())).state).toBe(5);
  await world.run(domain.undefine());
  expect(await refusal(world, domain.create())).toBe("NO_DOMAIN");
});
