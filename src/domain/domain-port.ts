/**
 * The driver's end of a port. It trusts nothing that comes: what is no call is answered with an error where
 * it has a number, and else dropped.
 */

import * as v from "valibot";
import { HeldPort } from "../engine/held-port.ts";
import type { Port } from "../engine/protocol.ts";
import { CALLS, type CallName } from "./calls.ts";
import { checked } from "./definition.ts";
import { DOMAIN_CALLS_MAX, type FromDomainPort } from "./domain-protocol.ts";
import type { DomainDriver } from "./driver.ts";
import { DomainError } from "./errors.ts";

const callSchema = v.strictObject({
  id: v.pipe(v.number(), v.safeInteger()),
  call: v.picklist(Object.keys(CALLS) as CallName[]),
  args: v.array(v.unknown()),
});
const cancelSchema = v.strictObject({ cancel: v.number() });

export class DomainPort {
  readonly #driver: DomainDriver;
  readonly #port: HeldPort;
  readonly #running = new Map<number, AbortController>();
  readonly #unsubscribe: () => void;
  readonly #onBug: (bug: unknown) => void;

  /**
   * @param onGone the other end is gone; calls that only waited are called off
   * @param onBug something was thrown that is no DomainError
   */
  constructor(init: {
    readonly port: Port;
    readonly driver: DomainDriver;
    readonly onBug: (bug: unknown) => void;
    readonly onGone?: () => void;
  }) {
    this.#driver = init.driver;
    this.#onBug = init.onBug;
    this.#port = new HeldPort(
      init.port,
      (data) => this.#receive(data),
      () => {
        this.close();
        init.onGone?.();
      },
    );
    this.#unsubscribe = init.driver.subscribe((event) => this.#post({ event }));
  }

  close(): void {
    this.#unsubscribe();
    for (const call of this.#running.values()) call.abort();
    this.#running.clear();
    this.#port.close();
  }

  #post(message: FromDomainPort): void {
    this.#port.post(message);
  }

  #receive(data: unknown): void {
    const cancel = v.safeParse(cancelSchema, data);
    if (cancel.success) this.#running.get(cancel.output.cancel)?.abort();
    else this.#serve(data).catch(this.#onBug);
  }

  async #serve(data: unknown): Promise<void> {
    const id = v.safeParse(v.looseObject({ id: v.number() }), data);
    if (!id.success) return;
    try {
      const result = await this.#run(data);
      this.#post({ id: id.output.id, result });
    } catch (error) {
      if (!(error instanceof DomainError)) throw error;
      this.#post({ id: id.output.id, error: { code: error.code, message: error.message } });
    }
  }

  async #run(data: unknown): Promise<unknown> {
    const { id, call, args } = checked(callSchema, data, "INVALID_ARG");
    if (this.#running.has(id)) throw new DomainError("INVALID_ARG", `Call ${id} is under way`);
    if (this.#running.size >= DOMAIN_CALLS_MAX) {
      const text = `More than ${DOMAIN_CALLS_MAX} calls are under way`;
      throw new DomainError("OPERATION_FAILED", text);
    }
    const abort = new AbortController();
    this.#running.set(id, abort);
    try {
      return await this.#driver.call(call, args as never, { signal: abort.signal });
    } finally {
      this.#running.delete(id);
    }
  }
}
