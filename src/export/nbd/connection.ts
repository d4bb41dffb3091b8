/**
 * One client, from the greeting to its end.
 *
 *     handshake ──▶ transmission: requests are taken in one after the other, run side by side,
 *                   and answered as they finish ──▶ drained: the last of them has ended
 *
 * A client has only so many requests under way, and only so much memory; when it does not take its
 * answers, no more of its requests are taken in. All of that ends with the connection.
 */

import { Bell } from "../../base/bell.ts";
import { MiB } from "../../base/bytes.ts";
import type { ByteChannel } from "../../base/channel.ts";
import type { Clock } from "../../base/clock.ts";
import { BlockError } from "../../base/errors.ts";
import type { ExportUser } from "../driver.ts";
import { type CommandContext, run, type Signals } from "./commands.ts";
import { type Agreement, type ExportNames, Negotiation } from "./negotiation.ts";
import { Command } from "./protocol.ts";
import { ByteReader, HangUp } from "./reader.ts";
import { Replies } from "./replies.ts";
import { type Request, receive } from "./request.ts";

/** As in QEMU. */
const REQUESTS_MAX = 16;
/** Of data on its way, both directions together. Two of the longest requests. */
const MEMORY_BYTES = 64 * MiB;
/** For the most extents that one answer tells. */
const STATUS_BYTES = 8 * MiB;

export interface ConnectionInit {
  readonly channel: ByteChannel;
  readonly exports: ExportNames;
  readonly clock: Clock;
  /** For the handshake; 0: all the time in the world. */
  readonly handshakeSeconds: number;
}

/** A place for a request. Each has signals of its own: only so many may listen to one. */
interface Slot {
  readonly unwanted: AbortController;
  readonly cut: AbortController;
}

export class Connection implements ExportUser {
  readonly #init: ConnectionInit;
  readonly #reader: ByteReader;
  readonly #gone = new AbortController();
  /** All that there have been, 16 at most, and those that nobody has. */
  readonly #slots: Slot[] = [];
  readonly #free: Slot[] = [];
  /** Rung when a request has ended. */
  readonly #ended = new Bell();
  #memory = 0;
  /** What came out of a request that is no BlockError. */
  #bug: unknown;

  constructor(init: ConnectionInit) {
    this.#init = init;
    this.#reader = new ByteReader(init.channel);
    init.channel.closed.then(() => this.#giveUp());
  }

  /** Resolves when the client is gone and nothing is done for it any more. @throws only bugs */
  async run(): Promise<void> {
    const { channel } = this.#init;
    try {
      const agreement = await this.#negotiate();
      if (agreement) await this.#transmit(agreement);
      channel.finish();
      await channel.closed;
    } catch (error) {
      channel.destroy();
      if (!(error instanceof HangUp || error instanceof BlockError)) throw error;
    }
    if (this.#bug !== undefined) throw this.#bug;
  }

  /** The export goes away, or the server. */
  disconnect(): void {
    for (const { cut } of this.#slots) cut.abort();
    this.#giveUp();
    this.#init.channel.destroy();
  }

  /** The client is gone: nobody wants answers any more. */
  #giveUp(): void {
    this.#gone.abort();
    for (const { unwanted } of this.#slots) unwanted.abort();
  }

  async #negotiate(): Promise<Agreement | null> {
    const { channel, exports, clock, handshakeSeconds } = this.#init;
    const timer =
      handshakeSeconds > 0
        ? clock.setTimer(handshakeSeconds * 1000, () => channel.destroy())
        : undefined;
    try {
      return await new Negotiation(this.#reader, exports, (bytes) => channel.write(bytes)).run();
    } finally {
      timer?.cancel();
    }
  }

  async #transmit(agreement: Agreement): Promise<void> {
    const { exported } = agreement.exported;
    // It may have gone away since it was found.
    if (exported.shuttingDown) throw new HangUp("The export goes away");
    exported.enter(this);
    exported.backend.node.world.trace.nbd_negotiate_success?.(agreement.exported.name);
    try {
      await this.#serve(agreement);
    } catch (error) {
      // Whoever waits for room is not waited for.
      this.#giveUp();
      this.#init.channel.destroy();
      throw error;
    } finally {
      while (this.#free.length < this.#slots.length) await this.#ended.rung();
      exported.leave(this);
    }
  }

  async #serve(agreement: Agreement): Promise<void> {
    const { channel, clock } = this.#init;
    const { exported } = agreement;
    const context = {
      exported,
      backend: exported.backend,
      replies: new Replies(agreement.mode, (bytes) => channel.write(bytes)),
      clock,
    };
    for (;;) {
      while (this.#slots.length === REQUESTS_MAX && this.#free.length === 0) {
        await this.#ended.rung(this.#gone.signal);
      }
      let held = 0;
      const request = await receive(this.#reader, agreement, async (bytes) => {
        await this.#takeMemory(bytes);
        held = bytes;
      });
      if (request === null) return;
      if (request.refusal === null && request.data === null) {
        held = answerBytes(request);
        await this.#takeMemory(held);
      }
      // Nobody would call it off any more.
      if (this.#gone.signal.aborted) throw new HangUp("The client has gone meanwhile");
      this.#start(request, context, held);
      if (request.isLast) return;
    }
  }

  /** Waits for room. Whoever comes alone gets what it wants. */
  async #takeMemory(bytes: number): Promise<void> {
    while (this.#memory > 0 && this.#memory + bytes > MEMORY_BYTES) {
      await this.#ended.rung(this.#gone.signal);
    }
    this.#memory += bytes;
  }

  #start(request: Request, context: Omit<CommandContext, keyof Signals>, held: number): void {
    const slot = this.#takeSlot();
    const { unwanted, cut } = slot;
    this.#answer(request, { ...context, unwanted: unwanted.signal, cut: cut.signal })
      .catch((error) => this.#fail(error))
      .finally(() => {
        this.#free.push(slot);
        this.#memory -= held;
        this.#ended.ring();
      });
  }

  /** There is a free one, or room for one more. */
  #takeSlot(): Slot {
    const free = this.#free.pop();
    if (free) return free;
    const slot = { unwanted: new AbortController(), cut: new AbortController() };
    this.#slots.push(slot);
    return slot;
  }

  async #answer(request: Request, context: CommandContext): Promise<void> {
    const { replies } = context;
    try {
      if (request.refusal !== null) throw new BlockError("EINVAL", request.refusal);
      await run(request, context);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      const { exported, backend } = context;
      backend.node.world.trace.nbd_co_send_error?.(exported.name, error.message);
      await replies.error(request, error);
    }
  }

  /** An answer that cannot be sent is the end, and so is a bug. */
  #fail(error: unknown): void {
    if (!(error instanceof BlockError)) this.#bug ??= error;
    this.#init.channel.destroy();
  }
}

/** What the answer may take up. */
function answerBytes({ type, bytes }: Request): number {
  if (type === Command.read) return bytes;
  return type === Command.blockStatus ? STATUS_BYTES : 0;
}
