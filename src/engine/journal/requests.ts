/**
 * Requests that a client may send again after the engine was lost, by an id that is its own:
 *
 *   { "execute": "blockdev-add", …, "id": { "client": "tab-7", "n": 12 } }
 *
 *   on record                what a second time gets
 *   nothing                  it is run: whatever the first one did is not on record either
 *   accepted                 the answer to the first one, when that is there; an error if it was under way
 *                            when the engine was lost
 *   answered                 that answer
 *
 * The answer is in the record that has what the request did: both are there or neither is. Questions are
 * not kept: they can be asked again.
 */

import * as v from "valibot";
import { BlockError } from "../../base/errors.ts";
import type { RequestLog } from "../../qmp/monitor.ts";
import { isQuestion } from "../../qmp/question.ts";
import type { Command } from "../../qmp/schema.ts";
import type { ClientRecord } from "./record.ts";
import type { Recorder } from "./recorder.ts";

const CLIENTS_MAX = 64;
/** Of one client. One that waits for more answers than this asks too much. */
const REQUESTS_MAX = 64;

const ownId = v.strictObject({
  client: v.pipe(v.string(), v.maxLength(64)),
  n: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
});

interface Client {
  forgotten: number;
  readonly requests: Map<number, object | null>;
}

export class Requests implements RequestLog {
  readonly #recorder: Recorder;
  /** The one heard of last comes last. */
  readonly #clients = new Map<string, Client>();
  /** Accepted by this engine, still under way: who wants the answer. */
  readonly #running = new Map<string, ((reply: object) => void)[]>();

  constructor(recorder: Recorder, recorded: readonly ClientRecord[]) {
    this.#recorder = recorder;
    for (const { client, forgotten, requests } of recorded) {
      const known = requests.map(({ n, reply }) => [n, reply] as const);
      this.#clients.set(client, { forgotten, requests: new Map(known) });
    }
  }

  describe(): ClientRecord[] {
    return [...this.#clients].map(([client, { forgotten, requests }]) => ({
      client,
      forgotten,
      requests: [...requests].map(([n, reply]) => ({ n, reply: reply as never })),
    }));
  }

  recall(id: unknown, command: Command): object | Promise<object> | undefined {
    if (!v.is(ownId, id) || isQuestion(command.name)) return undefined;
    const { client, n } = id;
    const known = this.#clients.get(client);
    const reply = known?.requests.get(n);
    if (reply) return { ...reply, id };
    const running = this.#running.get(`${client} ${n}`);
    if (running)
      return new Promise((resolve) => running.push((first) => resolve({ ...first, id })));
    if (reply === null) throw unfinished(client, n);
    if (known && n <= known.forgotten) {
      throw new BlockError(
        "ESTALE",
        `Request ${n} of client '${client}' is forgotten: too long ago`,
      );
    }
    return undefined;
  }

  accept(id: unknown, command: Command): Promise<void> | null {
    if (!v.is(ownId, id) || isQuestion(command.name)) return null;
    const { client, n } = id;
    this.#note(client, n, null);
    this.#running.set(`${client} ${n}`, []);
    if (!command.isOnce) return null;
    this.#recorder.touch();
    return this.#recorder.covered();
  }

  answered(id: unknown, command: Command, { id: _id, ...reply }: { readonly id?: unknown }): void {
    if (!v.is(ownId, id) || isQuestion(command.name)) return;
    this.#note(id.client, id.n, reply);
    const key = `${id.client} ${id.n}`;
    for (const tell of this.#running.get(key) ?? []) tell(reply);
    this.#running.delete(key);
  }

  #note(name: string, n: number, reply: object | null): void {
    const client = this.#clients.get(name) ?? { forgotten: -1, requests: new Map() };
    this.#clients.delete(name);
    this.#clients.set(name, client);
    client.requests.set(n, reply);
    for (const [old] of client.requests) {
      if (client.requests.size <= REQUESTS_MAX) break;
      client.requests.delete(old);
      client.forgotten = Math.max(client.forgotten, old);
    }
    // Not one that waits for an answer: asked again it would be a new one.
    const busy = new Set(
      [...this.#running.keys()].map((key) => key.slice(0, key.lastIndexOf(" "))),
    );
    for (const [old] of this.#clients) {
      if (this.#clients.size <= CLIENTS_MAX) break;
      if (!busy.has(old)) this.#clients.delete(old);
    }
  }
}

function unfinished(client: string, n: number): BlockError {
  return new BlockError(
    "ESTALE",
    `The engine was lost while request ${n} of client '${client}' was under way, and whether it was ` +
      "done is not known: look at query-jobs, x-query-job-history and query-named-block-nodes",
  );
}
