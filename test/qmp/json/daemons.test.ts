/**
 * The same bytes to the real daemons and to ours: the same number of replies, of the same classes,
 * with the same ids to the last digit, whatever was wrong with the bytes.
 */

import { describe, expect, it } from "vitest";
import { seededRandom } from "../../../src/base/random.ts";
import { JsonReader } from "../../../src/qmp/json/reader.ts";
import { messageText } from "../../../src/qmp/json/writer.ts";
import { testEngine } from "../conversation.ts";
import { DAEMONS, RealDaemon } from "../daemons.ts";
import { Corpus, joined, text } from "./corpus.ts";

const SEED = 20240607;
const CASES = 1000;

/** Ends whatever an input has left open: an error of its own, and a reply that tells them apart. */
const MARK = text('\u0000\n{"execute":"query-version","id":"MARK"}');
const NEGOTIATION = text('{"execute":"qmp_capabilities"}\n');

describe.skipIf(DAEMONS.length === 0)("the real qemu-storage-daemon", () => {
  const corpus = new Corpus(seededRandom(SEED));
  const inputs = Array.from({ length: CASES }, () => corpus.next());

  for (const daemon of DAEMONS) {
    it.each([
      ["after negotiation", NEGOTIATION],
      ["before negotiation", text("\n")],
    ])(
      `gives the same replies to ${CASES} inputs (seed ${SEED}), ${DAEMONS.indexOf(daemon)}, %s`,
      async (_, start) => {
        // With oob a daemon answers out of order, and 10.0 has been seen to crash under such input.
        const safe = inputs.filter((input) => !Buffer.from(input).includes('"enable"'));
        const theirs = await answersOf(await askDaemon(daemon, start, safe));
        const ours = await answersOf(await askOurs(start, safe));
        for (const [i, input] of safe.entries()) {
          expect({ i, input: shown(input), replies: ours[i] }).toEqual({
            i,
            input: shown(input),
            replies: theirs[i],
          });
        }
        expect(ours).toHaveLength(safe.length + 1);
        expect(theirs).toHaveLength(safe.length + 1);
      },
    );
  }
});

async function askDaemon(
  program: string,
  start: Uint8Array,
  inputs: readonly Uint8Array[],
): Promise<string> {
  const daemon = new RealDaemon(program);
  try {
    daemon.say(start);
    for (const input of inputs) daemon.say(joined([input, MARK]));
    daemon.say('{"execute":"query-version","id":"THE END"}');
    return await daemon.hear('"THE END"');
  } finally {
    daemon.kill();
  }
}

/** In pieces of all sizes, held back where the monitor says so. */
async function askOurs(start: Uint8Array, inputs: readonly Uint8Array[]): Promise<string> {
  const { engine } = await testEngine();
  const heard: string[] = [];
  let wake = () => {};
  const monitor = engine.openMonitor(
    (message) => {
      heard.push(messageText(message));
      wake();
    },
    () => wake(),
  );
  const random = seededRandom(SEED);
  const all = joined([
    start,
    ...inputs.flatMap((input) => [input, MARK]),
    text('{"execute":"query-version","id":"THE END"}'),
  ]);
  for (let at = 0; at < all.length; ) {
    const bytes = 1 + random.below(200);
    const isReady = monitor.receiveBytes(all.slice(at, at + bytes));
    at += bytes;
    if (!isReady)
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
  }
  while (!heard.at(-1)!.includes('"THE END"'))
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
  return heard.join("");
}

/** For each input the replies to it: "return" or the error's class, and the id. */
function answersOf(heard: string): string[][] {
  const answers: string[][] = [[]];
  const reader = new JsonReader();
  // The one thing that QEMU writes and no JSON reader takes.
  reader.take(text(heard.replace(/(?<=[ [])(-?)inf(?=[,\]}])/g, "$11e999")));
  for (let item = reader.next(); item; item = reader.next()) {
    if ("error" in item) throw item.error;
    const reply = item.value as { QMP?: object; error?: { class: string }; id?: unknown };
    if (reply.QMP) continue;
    const id = "id" in reply ? ` ${canonical(reply.id)}` : "";
    if (reply.id === "MARK") answers.push([]);
    else answers.at(-1)!.push(`${reply.error?.class ?? "return"}${id}`);
  }
  return answers;
}

/** Members in order: QEMU's own is that of a hash table. */
function canonical(value: unknown): string {
  if (typeof value !== "object" || value === null) return messageText([value]);
  if (Array.isArray(value)) return `[${value.map(canonical)}]`;
  if (Object.getPrototypeOf(value) !== Object.prototype) return messageText([value]);
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([key, member]) => `${messageText([key])}${canonical(member)}`)}}`;
}

function shown(input: Uint8Array): string {
  return JSON.stringify(Buffer.from(input).toString("latin1")).slice(0, 300);
}
