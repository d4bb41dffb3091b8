/** Makes sessions wrong: in their bytes, in their messages, and in how they are sent. */

import { writeU32 } from "../../../src/base/bytes.ts";
import { bytes } from "../../export/nbd/raw-client.ts";
import type { Dice } from "../../model/dice.ts";
import { goodSession, greedy, type Message } from "./session.ts";

/** What becomes of the connection. */
export type Ending = "finish" | "hang up" | "wait";

export interface Attack {
  /** In the order in which they are sent, each by a write of its own. */
  readonly pieces: readonly Uint8Array[];
  /** Replies are read; false: not until all has been sent, or nothing more is taken. */
  readonly reads: boolean;
  readonly ending: Ending;
  /** What was done to it, for people. */
  readonly story: readonly string[];
}

type Mutation = (messages: Message[], dice: Dice) => void;

const LENGTHS = [
  0, 1, 2, 511, 4097, 65536, 0x2000000, 0x2000001, 0x7fffffff, 0x80000000, 0xffffffff,
];

const MUTATIONS: Readonly<Record<string, Mutation>> = {
  flip(messages, dice) {
    change(messages, dice, (data) => {
      for (let i = 1 + dice.below(4); i > 0 && data.length > 0; i--) {
        data[dice.below(Math.min(data.length, 64))]! ^= 1 << dice.below(8);
      }
      return data;
    });
  },
  cut(messages, dice) {
    change(messages, dice, (data) => data.subarray(0, dice.below(data.length + 1)));
  },
  "cut all that follows": (messages, dice) => {
    const at = dice.below(messages.length);
    change(messages, dice, (data) => data.subarray(0, dice.below(data.length + 1)), at);
    messages.splice(at + 1);
  },
  repeat(messages, dice) {
    const at = dice.below(messages.length);
    const copies = Array.from({ length: 1 + dice.below(20) }, () => messages[at]!);
    messages.splice(at, 0, ...copies);
  },
  drop(messages, dice) {
    messages.splice(dice.below(messages.length), 1);
  },
  swap(messages, dice) {
    const [a, b] = [dice.below(messages.length), dice.below(messages.length)];
    [messages[a], messages[b]] = [messages[b]!, messages[a]!];
  },
  "wrong length": (messages, dice) => {
    const withLength = messages.flatMap(({ lengths }, i) => (lengths.length > 0 ? [i] : []));
    if (withLength.length === 0) return;
    const at = dice.pick(withLength);
    const [offset, width] = dice.pick(messages[at]!.lengths);
    change(
      messages,
      dice,
      (data) => {
        if (width === 8) writeU32(data, offset, dice.oneIn(2) ? 0 : dice.pick(LENGTHS));
        writeU32(
          data,
          offset + width - 4,
          dice.oneIn(4) ? dice.below(2 ** 32) : dice.pick(LENGTHS),
        );
        return data;
      },
      at,
    );
  },
  "wrong magic": (messages, dice) => {
    change(messages, dice, (data) => {
      dice.random.fill(data.subarray(0, 4));
      return data;
    });
  },
  splice(messages, dice) {
    const other = goodSession(dice);
    const start = dice.below(other.length);
    const part = other.slice(start, start + 1 + dice.below(4));
    messages.splice(dice.below(messages.length + 1), 0, ...part);
  },
  noise(messages, dice) {
    const data = new Uint8Array(dice.below(dice.oneIn(10) ? 100_000 : 200));
    dice.random.fill(data);
    messages.splice(dice.below(messages.length + 1), 0, { data, lengths: [] });
  },
};

/** Everything about one case comes from its dice. */
export function makeAttack(dice: Dice): Attack {
  const messages = goodSession(dice);
  const story: string[] = [];
  // Some stay good: then it is only about how they are sent.
  for (let i = dice.below(4); i > 0 && messages.length > 0; i--) {
    const [name, mutate] = dice.pick(Object.entries(MUTATIONS));
    mutate(messages, dice);
    story.push(name);
  }
  const isFlood = dice.oneIn(20);
  if (isFlood) flood(messages, dice, story);
  const pieces = cutUp(messages, dice, story);
  const reads = !isFlood && !dice.oneIn(8);
  const ending = dice.pick<Ending>(["finish", "finish", "hang up", "wait"]);
  return { pieces, reads, ending, story: [...story, reads ? "reads" : "does not read", ending] };
}

/** The last requests over and over, or reads of the whole disk. */
function flood(messages: Message[], dice: Dice, story: string[]): void {
  // A goodbye would end it.
  if (dice.oneIn(2)) messages.pop();
  let last = messages.slice(-1 - dice.below(3));
  if (dice.oneIn(2)) last = last.flatMap(greedy);
  for (let i = 20 + dice.below(200); i > 0; i--) messages.push(...last);
  story.push("flood");
}

function cutUp(messages: readonly Message[], dice: Dice, story: string[]): Uint8Array[] {
  const whole = messages.map(({ data }) => data);
  const all = bytes(...whole);
  switch (dice.below(4)) {
    case 0:
      story.push("all at once");
      return [all];
    case 1: {
      if (all.length > 4000) return whole;
      story.push("dribble");
      return pieces(all, () => 1 + dice.below(3));
    }
    case 2:
      story.push("odd pieces");
      return pieces(all, () => 1 + dice.below(20_000));
    default:
      return whole;
  }
}

function pieces(all: Uint8Array, length: () => number): Uint8Array[] {
  const cut: Uint8Array[] = [];
  for (let at = 0; at < all.length; ) {
    const piece = all.subarray(at, at + length());
    cut.push(piece);
    at += piece.length;
  }
  return cut;
}

function change(
  messages: Message[],
  dice: Dice,
  how: (data: Uint8Array) => Uint8Array,
  at = dice.below(messages.length),
): void {
  const { data } = messages[at]!;
  // Its lengths may not be where they were.
  messages[at] = { data: how(data.slice()), lengths: [] };
}
