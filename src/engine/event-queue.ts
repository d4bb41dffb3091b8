/** Events on their way to somebody who reads them one by one. */

import type { EventName, QmpEvent } from "../qmp/events.ts";
import { clientError, type QmpError } from "./qmp-error.ts";

/** More than a page that is only busy leaves unread. */
export const UNREAD_EVENTS_MAX = 10_000;

/**
 * An async iterator over events of some names, from its creation on.
 *
 * It keeps what is not read yet, up to a limit. A reader that falls further behind gets an error
 * instead of a gap that it could not know of. So does one whose engine dies. Leaving the loop ends it.
 */
export class EventQueue<Event extends QmpEvent = QmpEvent> implements AsyncIterableIterator<Event> {
  /** Empty: all. */
  readonly #names: ReadonlySet<string>;
  readonly #onEnd: () => void;
  #unread: Event[] = [];
  #readers: {
    resolve: (result: IteratorResult<Event, undefined>) => void;
    reject: (reason: QmpError) => void;
  }[] = [];
  #ended = false;
  /** Told once, after what came before it. */
  #failure: QmpError | null = null;

  /**
   * @param names of Event; none: all
   * @param onEnd nothing need be pushed any more
   */
  constructor(names: readonly EventName[], onEnd: () => void) {
    this.#names = new Set(names);
    this.#onEnd = onEnd;
  }

  get unreadCount(): number {
    return this.#unread.length;
  }

  /** @param event any; those of other names are left out */
  push(event: QmpEvent): void {
    if (this.#ended) return;
    if (this.#names.size === 0 || this.#names.has(event.event)) this.#push(event as Event);
  }

  #push(event: Event): void {
    const reader = this.#readers.shift();
    if (reader) {
      reader.resolve({ value: event, done: false });
      return;
    }
    this.#unread.push(event);
    if (this.#unread.length > UNREAD_EVENTS_MAX) {
      this.#unread = [];
      const why = `More than ${UNREAD_EVENTS_MAX} events were not read in time and are lost`;
      this.fail(clientError("ENOMEM", why));
    }
  }

  /** Ends the iteration with an error, after what is unread. */
  fail(failure: QmpError): void {
    if (this.#ended) return;
    this.#end();
    const reader = this.#readers.shift();
    if (reader) reader.reject(failure);
    else this.#failure = failure;
    this.#release();
  }

  next(): Promise<IteratorResult<Event, undefined>> {
    const event = this.#unread.shift();
    if (event) return Promise.resolve({ value: event, done: false });
    if (this.#failure) {
      const failure = this.#failure;
      this.#failure = null;
      return Promise.reject(failure);
    }
    if (this.#ended) return Promise.resolve({ value: undefined, done: true });
    return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<Event, undefined>> {
    this.#unread = [];
    this.#failure = null;
    if (!this.#ended) this.#end();
    this.#release();
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #end(): void {
    this.#ended = true;
    this.#onEnd();
  }

  #release(): void {
    for (const reader of this.#readers.splice(0)) reader.resolve({ value: undefined, done: true });
  }
}
