/**
 * A client's data port on its way to the engine: numbers the writes (write-order.ts), holds back those
 * that touch bytes of an earlier one, and lets all tabs hear of what a flush has made durable.
 *
 *   client ══▶ OrderedPort ══▶ DataPort       write: in its turn; its answer gets `order`
 *          ◀══             ◀══                flush: answered in the lobby, so that no client can know of
 *                                             it before all can
 */

import { BlockError } from "../../base/errors.ts";
import type { DataMessage } from "../data-request.ts";
import type { ErrorData, FromDataPort, OpenedDevice, Port } from "../protocol.ts";
import type { Run } from "./runs.ts";
import type { WriteAgain } from "./write-again.ts";
import type { WriteOrder } from "./write-order.ts";

export interface OrderedPortInit {
  readonly port: Port;
  readonly order: WriteOrder;
  /** Knows which exports cannot be opened yet. */
  readonly again: Pick<WriteAgain, "isHeld" | "wait">;
  /** Flushes what stands on the same nodes as the export, too. @returns all of these exports */
  readonly flushOthers: (exportId: string) => Promise<readonly string[]>;
  /** These writes to the exports are durable: the flush is done. */
  readonly onDurable: (exports: readonly string[], writes: readonly Run[], id: number) => void;
  readonly errorData: (error: BlockError) => ErrorData;
}

interface Flush {
  readonly exportId: string;
  /** What was over when it was asked for. */
  readonly writes: readonly Run[];
}

export class OrderedPort implements Port {
  readonly #init: OrderedPortInit;
  #onmessage: ((event: MessageEvent) => void) | null = null;
  /** Under way, by the number of the request. */
  readonly #opens = new Map<number, string>();
  /** Opens that wait for their export. */
  readonly #held = new Map<number, AbortController>();
  readonly #writes = new Map<number, number>();
  /** Of these: not let through yet. */
  readonly #queued = new Set<number>();
  readonly #flushes = new Map<number, Flush>();
  /** The export of each device. */
  readonly #devices = new Map<number, string>();

  constructor(init: OrderedPortInit) {
    this.#init = init;
  }

  get onmessage(): ((event: MessageEvent) => void) | null {
    return this.#onmessage;
  }

  set onmessage(handler: ((event: MessageEvent) => void) | null) {
    this.#onmessage = handler;
    this.#init.port.onmessage = handler && ((event) => this.#receive(event));
  }

  addEventListener(type: "close" | "messageerror", listener: () => void): void {
    this.#init.port.addEventListener(type, listener);
  }

  /** Towards the client. */
  postMessage(message: unknown, transfer: Transferable[]): void {
    const reply = message as FromDataPort;
    if (reply.type === "engine-stopped") return this.#post(reply, transfer);
    const { id } = reply;
    const order = this.#writes.get(id);
    this.over(id);
    const opened = this.#take(this.#opens, id);
    const flush = this.#take(this.#flushes, id);
    if (reply.type === "failed") return this.#post(reply, transfer);
    if (opened !== undefined) this.#devices.set((reply.result as OpenedDevice).device, opened);
    if (flush) void this.#flushed(id, flush);
    else this.#post(order === undefined ? reply : { ...reply, order }, transfer);
  }

  /** What the engine has begun it will do, though nobody hears of it: later writes wait for that as ever. */
  close(): void {
    for (const id of this.#queued) this.over(id);
    this.#queued.clear();
    const held = [...this.#held.values()];
    this.#held.clear();
    for (const waiting of held) waiting.abort();
    this.#init.port.close();
  }

  over(id: number): void {
    const order = this.#take(this.#writes, id);
    if (order !== undefined) this.#init.order.leave(order);
  }

  #receive(event: MessageEvent): void {
    const { id, request } = event.data as DataMessage;
    if (request.op === "cancel") this.#held.get(request.request)?.abort();
    if (request.op === "open") {
      if (this.#init.again.isHeld(request.export)) {
        return void this.#openLater(event, id, request.export);
      }
      this.#opens.set(id, request.export);
    }
    if (request.op === "close") this.#devices.delete(request.device);
    if (request.op === "flush") {
      const exportId = this.#devices.get(request.device);
      // Without one the engine refuses it.
      if (exportId !== undefined) {
        this.#flushes.set(id, { exportId, writes: this.#init.order.over });
      }
    }
    if (request.op === "write" || request.op === "write-zeroes") {
      const bytes = request.op === "write" ? request.data.byteLength : request.bytes;
      const { order, ready } = this.#init.order.enter(request.offset, bytes);
      this.#writes.set(id, order);
      if (ready) return void this.#forwardLater(id, event, ready);
    }
    this.#forward(event);
  }

  async #forwardLater(id: number, event: MessageEvent, ready: Promise<void>): Promise<void> {
    this.#queued.add(id);
    await ready;
    if (this.#queued.delete(id)) this.#forward(event);
  }

  async #openLater(event: MessageEvent, id: number, exportId: string): Promise<void> {
    const waiting = new AbortController();
    this.#held.set(id, waiting);
    try {
      await this.#init.again.wait(exportId, waiting.signal);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      // Unless nobody is there any more.
      if (!this.#held.delete(id)) return;
      return this.#post({ type: "failed", id, error: this.#init.errorData(error) }, []);
    }
    if (!this.#held.delete(id)) return;
    this.#opens.set(id, exportId);
    this.#forward(event);
  }

  #forward(event: MessageEvent): void {
    this.#onmessage?.(event);
  }

  async #flushed(id: number, { exportId, writes }: Flush): Promise<void> {
    try {
      const exports = await this.#init.flushOthers(exportId);
      this.#init.onDurable(exports, writes, id);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.#post({ type: "failed", id, error: this.#init.errorData(error) }, []);
    }
  }

  #post(message: object, transfer: Transferable[]): void {
    this.#init.port.postMessage(message, transfer);
  }

  #take<T>(map: Map<number, T>, id: number): T | undefined {
    const value = map.get(id);
    map.delete(id);
    return value;
  }
}
