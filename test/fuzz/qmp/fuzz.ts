/**
 * QMP fuzzing: one monitor says anything, a second one must be answered all the time. After each
 * message whatever it has asked is answered; after each batch the engine is told to put everything
 * away, and has to end up as empty as it was, in no more memory than before.
 *
 * Time is virtual: whoever waits for an answer moves it, so a hang is an answer that does not come in
 * a number of steps; a watchdog in real time is for loops that never come back to the clock.
 */

import { BlockError } from "../../../src/base/errors.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { BlockDriver } from "../../../src/block/driver.ts";
import { browserDrivers } from "../../../src/drivers/index.ts";
import { type MemoryStore, memoryDriver } from "../../../src/drivers/protocol/memory.ts";
import { createEngine, type Engine } from "../../../src/engine/engine.ts";
import { plainJson } from "../../../src/qmp/json/plain.ts";
import { messageText } from "../../../src/qmp/json/writer.ts";
import type { SchemaInfo } from "../../../src/qmp/types.ts";
import { compiledKernel } from "../../kernel/load.ts";
import { Dice } from "../../model/dice.ts";
import { SchemaGraph } from "../../qmp/introspect/types.ts";
import { FuzzError, type Fuzzer, type FuzzReport } from "../fuzzer.ts";
import { growth, heapInUse } from "../memory.ts";
import { Messages } from "./messages.ts";
import { putAway } from "./put-away.ts";
import { Talker } from "./talker.ts";

/** Messages after which all is put away. */
const BATCH = 250;

export const qmpFuzzer: Fuzzer = {
  name: "qmp",
  inputs: "messages",

  async run({ count, seed, onProgress }): Promise<FuzzReport> {
    const dice = new Dice(seededRandom(seed));
    const clock = new VirtualClock();
    const engine = await makeEngine(clock, dice);
    const bystander = await Talker.open(engine, clock);
    const reply = await bystander.ask("query-qmp-schema");
    const messages = new Messages(new SchemaGraph(reply["return"] as SchemaInfo[]), dice, {
      nodes: () => engine.graph.nodes.map(({ name }) => name),
      jobs: () => engine.jobs.all().flatMap(({ id }) => id ?? []),
    });
    const kinds = new Map<string, number>();
    const heap: number[] = [];
    const inputs: string[] = [];

    const attempt = async (what: string, run: () => Promise<void>) => {
      try {
        await run();
      } catch (error) {
        throw new FuzzError(what, seed, inputs, error);
      }
      if (engine.stopped) {
        const { cause } = engine.stopped;
        throw new FuzzError("the engine has stopped", seed, inputs, cause);
      }
    };

    for (let done = 0; done < count; ) {
      inputs.length = 0;
      let speaker = await Talker.open(engine, clock, kinds);
      for (let i = 0; i < BATCH && done < count; i++, done++) {
        const message = messages.next();
        inputs.push(shown(message));
        await attempt("a message was not answered", () => speaker.say(message));
        if (dice.oneIn(10)) {
          await attempt("the other monitor was not answered", async () => {
            await bystander.ask("query-jobs");
          });
        }
        if (dice.oneIn(20))
          await attempt("time stood still", () => clock.advance(dice.below(2000)));
        if (dice.oneIn(50)) {
          // In the midst of a command.
          speaker.leave(messages.next());
          speaker = await Talker.open(engine, clock, kinds);
        }
      }
      await attempt("something could not be put away", () => putAway(engine, bystander));
      speaker.leave();
      bystander.forget();
      heap.push(heapInUse());
      onProgress?.(done);
    }
    const more = growth(heap);
    if (more > 0) throw new FuzzError(`memory has grown by ${more} bytes`, seed, []);
    await attempt("the engine could not be closed", () => clock.runUntil(engine.close()));
    return { kinds, heap };
  },
};

/** Stores in memory only: what others need is not there, or would be asked of the network. */
async function makeEngine(clock: VirtualClock, dice: Dice): Promise<Engine> {
  const left = new Set(["opfs", "indexeddb", "http", "blob", "memory"]);
  const drivers = (browserDrivers(new Map()) as BlockDriver[]).filter(
    ({ name }) => !left.has(name),
  );
  const kernelBytes = await compiledKernel();
  const all = [...drivers, lockedMemory() as BlockDriver];
  return createEngine({ clock, random: dice.random, kernelBytes, drivers: all });
}

/**
 * As files have it: one user of a store. Two images written to one store damage each other, and an
 * image that cannot be written any more cannot be closed either.
 */
function lockedMemory() {
  const stores = new Map<string, MemoryStore>();
  const driver = memoryDriver(stores);
  return {
    ...driver,
    async open(context: Parameters<typeof driver.open>[0]) {
      const { name = "" } = context.options;
      if ((stores.get(name)?.users ?? 0) === 0) return driver.open(context);
      throw new BlockError("EBUSY", `The memory store '${name}' is in use`);
    },
  };
}

function shown(message: Uint8Array | object): string {
  if (message instanceof Uint8Array) return JSON.stringify(Buffer.from(message).toString("latin1"));
  try {
    return messageText(plainJson(message) as object).trim();
  } catch {
    return `(not JSON) ${Object.values(message).map(String).join(" ")}`;
  }
}
