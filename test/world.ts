/** The world of a test: time, chance and kernels, real ones in small. */

import type { Clock } from "../src/base/clock.ts";
import { seededRandom } from "../src/base/random.ts";
import { VirtualClock } from "../src/base/virtual-clock.ts";
import type { World } from "../src/block/driver.ts";
import { testKernel } from "./kernel/load.ts";

/**
 * A world of its own for every caller.
 *
 * @param options.seed of its chance; a test that fails prints it
 * @param options.clock a VirtualClock if it is not given: time stands still until it is moved
 */
export async function testWorld<C extends Clock = VirtualClock>(
  options: { seed?: number; clock?: C } = {},
): Promise<World & { clock: C }> {
  return {
    clock: options.clock ?? (new VirtualClock() as unknown as C),
    random: seededRandom(options.seed ?? 1),
    kernel: await testKernel(),
    trace: {},
  };
}
