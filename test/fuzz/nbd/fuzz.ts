/**
 * NBD streams that are wrong, one after the other, against one engine. Of each: the server says nothing
 * that is not NBD, comes to an end when the client does, lets go of the disk; the neighbour is served
 * meanwhile; no memory stays behind.
 *
 * Each attack is made from its own seed, and meets a disk of its own: a seed replays it.
 */

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { MiB } from "../../../src/base/bytes.ts";
import { BlockError } from "../../../src/base/errors.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { Dice } from "../../model/dice.ts";
import { Judge } from "./judge.ts";
import { type Attack, makeAttack } from "./mutate.ts";
import { FuzzWorld, type Line } from "./world.ts";

export interface FuzzOptions {
  /** How many attacks. */
  readonly cases: number;
  /** Of the first; the others count on. */
  readonly seed: number;
  readonly onSockets: boolean;
  /** Told now and then how much memory is in use. */
  readonly onBatch?: (done: number, memory: number) => void;
}

export interface FuzzReport {
  /** What the server said, in messages. */
  readonly messages: number;
  /** By how much the least memory in use was more in the second half than in the first, in bytes. */
  readonly growth: number;
}

/** One attack after which something was wrong. */
export class FuzzError extends Error {
  readonly seed: number;

  constructor(seed: number, story: readonly string[], cause: unknown) {
    const text = cause instanceof Error ? cause.message : String(cause);
    super(`seed ${seed}: ${text}\n  (${story.join(", ")})`, { cause });
    this.seed = seed;
  }
}

const BATCHES = 10;
/** After the last seed comes the first one. */
const SEEDS = 2 ** 32;
/** A client that does not take its answers costs no more than what one connection may hold. */
const UNREAD_BYTES_MAX = 100 * MiB;
/** More than comes and goes. */
const GROWTH_MAX = 4 * MiB;
/** Turns of the event loop after which a writer that has not got on is stuck. */
const STUCK_TURNS = 200;

/** @throws FuzzError; Error if memory stays behind */
export async function fuzzNbd(options: FuzzOptions): Promise<FuzzReport> {
  const { cases, seed: first, onSockets, onBatch } = options;
  const world = await FuzzWorld.start(onSockets);
  const memory: number[] = [];
  let messages = 0;
  for (let done = 0; done < cases; ) {
    const seed = (first + done) % SEEDS;
    const dice = new Dice(seededRandom(seed));
    const attack = makeAttack(dice);
    try {
      messages += await runCase(world, attack, dice);
    } catch (error) {
      throw new FuzzError(seed, attack.story, error);
    }
    done++;
    if (Math.floor((done * BATCHES) / cases) > memory.length) {
      memory.push(memoryInUse());
      onBatch?.(done, memory.at(-1)!);
    }
  }
  await world.close();
  // What is not collected yet comes and goes; what stays behind is in all of them.
  const half = Math.floor(memory.length / 2);
  const growth = Math.min(...memory.slice(half)) - Math.min(...memory.slice(0, half));
  if (growth > GROWTH_MAX) throw new Error(`${growth} bytes stay behind after ${cases} streams`);
  return { messages, growth };
}

/** @returns how many messages the server said */
async function runCase(world: FuzzWorld, attack: Attack, dice: Dice): Promise<number> {
  await world.openTarget(dice);
  const line = await world.dial();
  const judge = new Judge();
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
  return judge.messages;
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

let collect: (() => void) | null = null;

/** After a garbage collection, in bytes. */
function memoryInUse(): number {
  if (!collect) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as () => void;
  }
  collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
