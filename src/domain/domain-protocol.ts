/**
 * What a page and the driver say to each other over a port (src/engine/protocol.ts).
 *
 *     page ── { id, call, args } ──▶ driver        calls run side by side, and are answered in any order
 *          ── { cancel: id } ──────▶               nobody waits for it any more
 *          ◀── { id, result } or { id, error } ──
 *          ◀── { event } ──────────────────────    all events, from the moment the port is served
 *
 * Both sides load this file: it has no schemas.
 */

import type { CallName } from "./calls.ts";
import type { DomainErrorName } from "./errors.ts";
import type { DomainEvent } from "./events.ts";

/** Calls that one port may have under way. Bounds the driver's memory for a client. */
export const DOMAIN_CALLS_MAX = 256;

export type ToDomainPort =
  | { readonly id: number; readonly call: CallName; readonly args: readonly unknown[] }
  | { readonly cancel: number };

export type FromDomainPort =
  | { readonly id: number; readonly result: unknown }
  | {
      readonly id: number;
      readonly error: { readonly code: DomainErrorName; readonly message: string };
    }
  | { readonly event: DomainEvent };
