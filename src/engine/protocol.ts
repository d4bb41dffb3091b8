/**
 * What a page and its engine say to each other: two ports for each client, one for each monitor.
 *
 *             ConnectMessage (worker.postMessage, both ports transferred)
 *   page ═══════════════════════════════════════════════════════════════▶ worker
 *        ══ qmp ══  QMP, each message one JSON object                     Monitor
 *        ══ data ═  DataMessage ▶   ◀ DataReply, EngineStopped            DataPort
 *
 *             MonitorMessage, or open-monitor on a data port
 *   anybody ════════════════════════════════════════════════════════════▶ worker
 *        ══ port ═  QMP, as objects or as text                            Monitor
 *
 * QMP stays as QEMU has it. The data port is for what QMP cannot carry: the bytes of exports, Blobs
 * and Files. Its requests have numbers, run side by side and are answered in any order. Buffers are
 * transferred, never copied or shared, so no cross-origin isolation is needed.
 *
 * Both sides load this file: it has no schemas, so that a page does not load what checks them.
 */

import { MiB } from "../base/bytes.ts";
import type { Errno, ErrorClass } from "../base/errors.ts";
import type { DataRequest } from "./data-request.ts";

/** Most bytes of one read or write; the client splits longer ones. */
export const REQUEST_BYTES_MAX = 1 * MiB;
/** Requests that one data port may have under way. Bounds the engine's memory for a client. */
export const REQUESTS_MAX = 64;

/** The part of MessagePort that is used; see also local-port.ts. */
export interface Port {
  postMessage(message: unknown, transfer: Transferable[]): void;
  onmessage: ((event: MessageEvent) => void) | null;
  /**
   * close: the other end is gone; not every browser tells. messageerror: something came that cannot be
   * read.
   */
  addEventListener(type: "close" | "messageerror", listener: () => void): void;
  /** Nothing is sent or received any more; the other end is told. */
  close(): void;
  /** Of who must know when a request has ended that nobody waits for any more, the port being closed. */
  over?(request: number): void;
}

/** The first message to the worker, one for each client. */
export interface ConnectMessage {
  readonly type: "connect";
  readonly qmp: MessagePort;
  readonly data: MessagePort;
}

export interface MonitorOptions {
  /**
   * As on a socket: text both ways, in pieces of any size to the monitor, one message a piece from it.
   * Otherwise each message is an object. Either way null is the end.
   */
  readonly text?: boolean;
}

/** Opens a monitor for whoever has the other end of the port. */
export interface MonitorMessage extends MonitorOptions {
  readonly type: "monitor";
  readonly port: MessagePort;
}

export interface OpenedDevice {
  readonly device: number;
  /** In bytes. */
  readonly size: number;
  readonly writable: boolean;
}

export interface StoredFile {
  readonly filename: string;
  /** In bytes. */
  readonly size: number;
}

/** What each request is answered with; undefined where it is only done. */
export interface DataResults {
  open: OpenedDevice;
  read: ArrayBuffer;
  "list-files": readonly StoredFile[];
  "get-file": File;
}
export type ResultOf<Op extends DataRequest["op"]> = Op extends keyof DataResults
  ? DataResults[Op]
  : undefined;

/** Why a request failed; a QMP error has no errno. */
export interface ErrorData {
  readonly class: ErrorClass;
  readonly desc: string;
  readonly errno?: Errno;
}

export type DataReply =
  | {
      readonly type: "done";
      readonly id: number;
      readonly result: unknown;
      /** Of a write, among all that an owner of shared disks does: see tabs/write-order.ts. */
      readonly order?: number;
    }
  | { readonly type: "failed"; readonly id: number; readonly error: ErrorData };

/** An internal error: nothing is done any more, and outstanding requests are not answered. */
export interface EngineStopped {
  readonly type: "engine-stopped";
  readonly error: ErrorData;
}

export type FromDataPort = DataReply | EngineStopped;
