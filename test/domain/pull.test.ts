import { afterEach, beforeEach, expect, it } from "vitest";
import { ended, guest, makeWorld, read, running, told, until, type World } from "./world.ts";

let world: World;
beforeEach(async () => {
  world = await makeWorld();
});
afterEach(() => world.end());

it("A03 pulls", async () => {
  const domain = await running(world);
  const device = await guest(world, domain, "vda");
  const before = await read(world, device);
  await world.run(domain.blockPull("vda"));
  await until(world, ended("vda"));
  expect(told(world, "vda")).toEqual([[1, 0]]);
  expect(await read(world, device)).toEqual(before);
  expect((await world.run(domain.getBlockJobInfo("vda"))).result).toBe(0);
  const info = await world.run(domain.info());
  expect(info.disks[0]!.chain.map(({ path }) => path)).toEqual(["/memory/top"]);
});
