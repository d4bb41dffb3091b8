/**
 * NBD streams that are wrong, one after the other, against one engine. Of each: the server says nothing
 * that is not NBD, comes to an end when the client does, lets go of the disk; the neighbour is served
 * meanwhile; no memory stays behind.
 *
 * Each attack is made from its own seed, and meets a disk of its own: a seed replays it.
 */

import { MiB } from "../../../src/base/bytes.ts";
import { BlockError } from "../../../src/base/errors.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { Dice } from "../../model/dice.ts";
import { FuzzError, type Fuzzer, type FuzzReport } from "../fuzzer.ts";
import { growth, heapInUse } from "../memory.ts";
import { Judge } from "./judge.ts";
import { type Attack, makeAttack } from "./mutate.ts";
import { FuzzWorld, type Line } from "./world.ts";

/** A client that does not take its answers costs no more than what one connection may hold. */
const UNREAD_BYTES_MAX = 100 * MiB;
/** Turns of the event loop after which a writer that has not got on is stuck. */
const STUCK_TURNS = 200;
/** Streams after which memory is looked at. */
const BATCH = 25;
/** After the last seed comes the first one. */
const SEEDS = 2 ** 32;

export const nbdFuzzer = fuzzer("nbd", "NBD streams over connections in memory", false);
export const nbdSocketsFuzzer = fuzzer("nbd-sockets", "NBD streams over unix sockets", true);

function fuzzer(name: string, inputs: string, onSockets: boolean): Fuzzer {
  return {
    name,
    inputs,
    async run({ count, seed: first, onProgress }): Promise<FuzzReport> {
      const world = await FuzzWorld.start(onSockets);
      const kinds = new Map<string, number>();
      const heap: number[] = [];
      for (let done = 0; done < count; ) {
        const seed = (first + done) % SEEDS;
        const dice = new Dice(seededRandom(seed));
        const attack = makeAttack(dice);
        try {
          await runCase(world, attack, dice, kinds);
        } catch (error) {
          const what = error instanceof Error ? error.message : String(error);
          throw new FuzzError(`--${name} 1: ${what}`, seed, [attack.story.join(", ")], error);
        }
        done++;
        if (done % BATCH === 0) heap.push(heapInUse());
        onProgress?.(done);
      }
      await world.close();
      const more = growth(heap);
      if (more > 0) throw new FuzzError(`memory has grown by ${more} bytes`, first, []);
      return { kinds, heap };
    },
  };
}

async function runCase(
  world: FuzzWorld,
  attack: Attack,
  dice: Dice,
  kinds: Map<string, number>,
): Promise<void> {
  await world.openTarget(dice);
  const line = await world.dial();
  const judge = new Judge(kinds);
  try {
    await Promise.all([
      runAttack(world, line, attack, judge),
      world.checkNeighbour(new Dice(seededRandom(dice.below(SEEDS)))),
    ]);
    world.checkAlive();
    // Under a client that is still there, too.
    await world.closeTarget(attack.ending === "wait");
  } finally {
    line.channel.destroy();
  }
  await world.checkNeighbour(dice);
  world.checkAlive();
}

async function runAttack(world: FuzzWorld, line: Line, attack: Attack, judge: Judge) {
  const { channel } = line;
  let listening = attack.reads ? listen(line, judge) : null;
  const sending = send(line, attack.pieces);
  if (listening) await world.patiently("sending", () => sending);
  else {
    const before = process.memoryUsage().arrayBuffers;
    await Promise.race([sending, turns(world, STUCK_TURNS)]);
    const held = process.memoryUsage().arrayBuffers - before;
    if (held > UNREAD_BYTES_MAX)
      throw new Error(`${held} bytes wait for a client that never reads`);
  }
  if (attack.ending === "wait") return;
  if (attack.ending === "hang up") return channel.destroy();
  // Now at the latest it takes its answers.
  listening ??= listen(line, judge);
  await world.patiently("sending the rest", () => sending);
  line.endSending();
  await world.patiently("the server's end", () => listening!);
}

/** Until all is sent or the server has had enough. */
async function send({ channel }: Line, pieces: readonly Uint8Array[]): Promise<void> {
  try {
    for (const piece of pieces) await channel.write(piece);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  }
}

async function listen({ channel }: Line, judge: Judge): Promise<void> {
  for (let piece = await channel.read(); piece; piece = await channel.read()) judge.hear(piece);
}

async function turns(world: FuzzWorld, count: number): Promise<void> {
  for (let i = 0; i < count; i++) await world.clock.yield();
}
