/** The engine of a simulation, with all drivers of a browser, the smallest format, and weather. */

import type { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { browserDrivers } from "../../src/drivers/index.ts";
import { createEngine, type Engine } from "../../src/engine/engine.ts";
import { tinyFormat } from "../block/tiny-format.ts";
import { compiledKernel } from "../kernel/load.ts";
import type { Dice } from "./dice.ts";
import { type Weather, weatherDriver } from "./weather.ts";

export async function makeEngine(
  clock: VirtualClock,
  dice: Dice,
  weather: Weather,
): Promise<Engine> {
  const drivers = [...browserDrivers(new Map()), tinyFormat as BlockDriver, weatherDriver(weather)];
  const kernelBytes = await compiledKernel();
  return createEngine({ clock, random: dice.random, kernelBytes, drivers });
}
