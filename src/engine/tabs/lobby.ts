/**
 * What tabs say to each other, and where.
 *
 *   lobby (all hear all)   who ▶   ◀ owner, durable, released     connect ▶   please ▶   ping ▶ ◀ pong
 *   desk (one pipe each)   hello, flush ▶   ◀ welcome, flushed
 *   other pipes            what a service speaks: QMP, DataMessage, …
 *
 *   client                                   owner
 *     │ ◀──────── owner: opening ──────────── │  has the lock and a new epoch
 *     │ ─── hello: kept writes, blobs ──────▶ │  waits for all who are there, opens, writes them again
 *     │ ◀────────────── welcome ───────────── │
 *     │ ◀──────── owner: serving ──────────── │
 *     │ ═══════ QMP, data, monitors ════════▶ │
 */

import type { ErrorData } from "../protocol.ts";
import type { KeptWrite } from "./kept-writes.ts";
import type { Run } from "./runs.ts";

/** Held by the worker that owns the disks. */
export const OWNER_LOCK = "blocktab:owner";
/** Held by each client while it is there and awake. */
export const CLIENT_LOCK = "blocktab:tab:";
export const LOBBY = "blocktab:lobby";
export const PIPE = "blocktab:pipe:";

export interface OwnerNotice {
  readonly type: "owner";
  readonly epoch: number;
  /** Of its worker. */
  readonly worker: string;
  readonly state: "opening" | "serving" | "leaving" | "failed";
  /** What it is doing, or why it failed: for people. */
  readonly text: string;
  /** Wall time of the grant. */
  readonly sinceSeconds: number;
  /** While leaving: the worker that should come next; others wait a moment. */
  readonly to?: string;
}

/** These writes to these exports would outlive a crash of the owner. */
export interface DurableNotice {
  readonly type: "durable";
  readonly epoch: number;
  /** null: all. */
  readonly exports: readonly string[] | null;
  /** Their numbers. */
  readonly writes: readonly Run[];
  /** The flush that this is the answer to. */
  readonly reply?: { readonly client: string; readonly id: number };
}

/** What clients hold of this export, as it could not be opened, need not be held any more. */
export interface ReleasedNotice {
  readonly type: "released";
  readonly epoch: number;
  readonly export: string;
  /** It has not been written again. */
  readonly isLost: boolean;
}

export interface ConnectRequest {
  readonly type: "connect";
  readonly epoch: number;
  readonly client: string;
  readonly service: string;
  /** Ids, as many as the service takes. */
  readonly pipes: readonly string[];
}

export type LobbyMessage =
  | OwnerNotice
  | DurableNotice
  | ReleasedNotice
  | ConnectRequest
  | { readonly type: "who" }
  /** A tab that a person looks at would rather have the disks itself. */
  | { readonly type: "please"; readonly worker: string }
  | { readonly type: "ping"; readonly epoch: number }
  | { readonly type: "pong"; readonly epoch: number };

export interface Hello {
  readonly type: "hello";
  /** Of the last owner that has let the client in. */
  readonly epoch: number;
  /** It has not heard since what that one told: others may have flushed what it keeps, and written newer. */
  readonly wasAway: boolean;
  /** While it was away: the last owner, if that was its own worker, which has ended with it; else 0. */
  readonly own: number;
  readonly kept: readonly KeptWrite[];
  readonly blobs: readonly (readonly [string, Blob])[];
}

/** Only a welcomed client sends it. */
export interface FlushRequest {
  readonly type: "flush";
  readonly n: number;
  readonly exports: readonly string[];
}

export type ToDesk = Hello | FlushRequest;

/** What was kept need not be kept any more: it is durable, but for */
export interface Welcome {
  readonly type: "welcome";
  /** exports of which kept writes are lost, */
  readonly lost: readonly string[];
  /** and exports that cannot be opened yet. */
  readonly held: readonly string[];
  /** A command that is sent again under its id is not done twice. */
  readonly remembers: boolean;
}

export type FromDesk =
  | Welcome
  | { readonly type: "flushed"; readonly n: number; readonly error?: ErrorData };
