/** The engine refuses a step that nothing depends on: the work goes on, and what is not done is told. */

import { afterEach, beforeEach, expect, it } from "vitest";
import { BLOCK_COMMIT, BLOCK_JOB_ABORT } from "../../src/domain/flags.ts";
import { QmpError } from "../../src/engine/client.ts";
import {
  backupIsOver,
  ended,
  guest,
  isReady,
  makeWorld,
  read,
  refusal,
  running,
  settle,
  told,
  until,
  type World,
  write,
} from "./world.ts";

let world: World;
beforeEach(async () => {
  world = await makeWorld();
});
afterEach(() => world.end());

const { PIVOT } = BLOCK_JOB_ABORT;
const demo = () => world.connection.domain("demo");

/** @returns lets them through again */
function refuse(...parts: readonly string[]): () => void {
  const { client } = world;
  const { execute } = client;
  const refused = new QmpError({ class: "GenericError", desc: "It is in use" });
  client.execute = (async (...args: Parameters<typeof execute>) => {
    const text = JSON.stringify(args);
    if (parts.every((part) => text.includes(part))) throw refused;
    return execute.apply(client, args);
  }) as typeof execute;
  return () => {
    client.execute = execute;
  };
}

it("lets a pivot stand whose temporary bitmap cannot be taken away, and tells of that", async () => {
  const domain = await running(world, { vda: ["a", "base"] });
  const device = await guest(world, domain, "vda");
  await world.run(domain.checkpointCreate({ name: "one" }));
  await write(world, device, { 2: 50 });
  await world.run(domain.blockCommit("vda", null, null, 0, BLOCK_COMMIT.ACTIVE));
  await until(world, isReady("vda"));
  const allow = refuse("block-dirty-bitmap-remove", "libvirt-tmp-activewrite");
  await world.run(domain.blockJobAbort("vda", PIVOT));
  expect(await until(world, ended("vda"))).toMatchObject({
    warning: expect.stringMatching(/libvirt-tmp-activewrite.*\/memory\/base.*in use/),
  });
  expect(told(world, "vda")).toEqual([
    [4, 3],
    [4, 0],
  ]);
  allow();
  // The driver works, and the checkpoint is good.
  const { disks } = await world.run(demo().info());
  expect(disks[0]!.chain.map(({ path }) => path)).toEqual(["/memory/base"]);
  const inc = [{ name: "vda", target: { driver: "memory", name: "inc" } }];
  await world.run(demo().backupBegin({ incremental: "one", disks: inc }));
  await until(world, backupIsOver);
  expect(await world.run(demo().getJobStats(1))).toMatchObject({ type: 3 });
});

it("leaves a job ready whose pivot is refused, though its temporary bitmap cannot be taken away", async () => {
  const domain = await running(world, { vda: ["a", "base"] });
  const before = await read(world, await guest(world, domain, "vda"));
  await world.run(domain.checkpointCreate({ name: "one" }));
  await world.run(domain.blockCommit("vda", null, null, 0, BLOCK_COMMIT.ACTIVE));
  await until(world, isReady("vda"));
  const { execute } = world.client;
  refuse("block-dirty-bitmap-remove", "libvirt-tmp-activewrite");
  refuse("job-complete");
  expect(await refusal(world, domain.blockJobAbort("vda", PIVOT))).toBe("OPERATION_FAILED");
  world.client.execute = execute;
  expect(await world.run(domain.listBlockJobs())).toMatchObject([{ state: "ready" }]);
  await world.run(domain.blockJobAbort("vda", PIVOT));
  expect(await read(world, await guest(world, domain, "vda"))).toBe(before);
});

it("goes on with a pull whose export somebody else has come to have the name of, and lets them keep it", async () => {
  const domain = await running(world, { vda: ["a"] });
  await world.run(domain.backupBegin({ mode: "pull" }));
  const execute = (name: string, args: object) =>
    world.run(world.client.execute(name as never, args as never));
  const id = "backup-vda-2";
  await execute("block-export-del", { id, mode: "hard" });
  await settle(world);
  await execute("blockdev-add", { driver: "memory", "node-name": "other", size: 512 });
  await execute("block-export-add", { type: "message-port", id, "node-name": "other" });
  await world.restart();
  const stats = await world.run(demo().getJobStats());
  expect(stats).toMatchObject({ type: 2, warning: expect.stringMatching(/'vda'.*backup-vda-2/) });
  await world.run(demo().abortJob());
  await until(world, backupIsOver);
  expect(await world.run(demo().getJobStats(1))).toMatchObject({ type: 3, success: true });
  const exports = await world.run(world.client.execute("query-block-exports"));
  expect(exports.find((one) => one.id === id)).toMatchObject({ "node-name": "other" });
});

it("starts a domain again as soon as nobody uses an image any more that could not be closed when it stopped", async () => {
  const domain = await running(world, { vda: ["a"] });
  const execute = (name: string, args: object) =>
    world.run(world.client.execute(name as never, args as never));
  const foreign = { type: "message-port", id: "foreign", "node-name": "libvirt-1-format" };
  await execute("block-export-add", foreign);
  await world.run(domain.destroy());
  expect(await refusal(world, domain.create())).toBe("OPERATION_FAILED");
  await execute("block-export-del", { id: "foreign", mode: "hard" });
  await settle(world);
  await world.run(domain.create());
  expect(world.driver.host.record.domains[0]).toMatchObject({ state: "running", leftovers: [] });
});
