/** The last QMP messages, both ways: what the log panel shows. */

import { signal } from "@preact/signals";
import type { LogEntry as Message } from "../src/engine/client.ts";

export interface LogEntry {
  readonly number: number;
  readonly direction: Message["direction"];
  /** The message as JSON, cut if it is long. */
  readonly text: string;
  /** Part of the page's own polling: commands that only ask, and their replies. */
  readonly isQuery: boolean;
}

const ENTRIES_MAX = 500;
const CHARACTERS_MAX = 2000;

export class QmpLog {
  /** Oldest first. Changes at most once per animation frame. */
  readonly entries = signal<readonly LogEntry[]>([]);
  readonly #pending: LogEntry[] = [];
  /** Ids of queries that wait for their reply. */
  readonly #queries = new Set<unknown>();
  #count = 0;

  /** @param entry greeting, command, reply or event */
  add({ direction, message }: Message): void {
    const text = JSON.stringify(message);
    this.#pending.push({
      number: ++this.#count,
      direction,
      isQuery: this.#isQuery(message),
      text: text.length > CHARACTERS_MAX ? `${text.slice(0, CHARACTERS_MAX)} …` : text,
    });
    if (this.#pending.length === 1) requestAnimationFrame(() => this.#publish());
    // A hidden page has no frames: keep no more than would be shown.
    if (this.#pending.length > ENTRIES_MAX) this.#pending.splice(1, 1);
  }

  clear(): void {
    this.entries.value = [];
  }

  #publish(): void {
    this.entries.value = [...this.entries.value, ...this.#pending.splice(0)].slice(-ENTRIES_MAX);
  }

  #isQuery(message: object): boolean {
    const { id, execute } = message as { id?: unknown; execute?: unknown };
    if (typeof execute !== "string") return this.#queries.delete(id);
    const isQuery = execute.startsWith("query-");
    if (isQuery) this.#queries.add(id);
    return isQuery;
  }
}
