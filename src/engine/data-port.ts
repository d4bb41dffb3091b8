/**
 * The engine's end of a client's data port: opens exports for it and moves their bytes, takes Blobs,
 * gives Files. What a client sends is checked as QMP arguments are; errors go back as data.
 */

import { check } from "../base/check.ts";
import { assert, BlockError } from "../base/errors.ts";
import type { BlockExport, ExportUser } from "../export/driver.ts";
import type { ExportList } from "../export/list.ts";
import { type DataMessage, type DataRequest, dataMessage } from "./data-request.ts";
import { HeldPort } from "./held-port.ts";
import {
  type ErrorData,
  type FromDataPort,
  type MonitorOptions,
  type Port,
  REQUEST_BYTES_MAX,
  REQUESTS_MAX,
  type StoredFile,
} from "./protocol.ts";

/** The image files that a browser keeps for us. All throw BlockError. */
export interface FileStore {
  /** Name of the driver whose files these are. */
  readonly driver: string;
  list(): Promise<readonly StoredFile[]>;
  /** The bytes as they are on disk now; good until somebody writes to them. */
  get(filename: string): Promise<File>;
  remove(filename: string): Promise<void>;
}

export interface DataPortInit {
  readonly port: Port;
  readonly exports: ExportList;
  /** Where the blob driver finds what clients hand over. */
  readonly blobs: Map<string, Blob>;
  readonly files: FileStore | undefined;
  /** Is the file open as a node? Then its bytes may change at any time. */
  readonly isFileOpen: (filename: string) => boolean;
  readonly openMonitor: (port: Port, options: MonitorOptions) => void;
  readonly shutdown: () => Promise<void>;
  /** Something that is no BlockError was thrown: the engine must stop. */
  readonly onBug: (bug: unknown) => void;
  /** The client has gone. */
  readonly onDisconnect: () => void;
}

/** An export that this client has open. */
class OpenExport implements ExportUser {
  readonly export: BlockExport;
  /** Under way on it; given up when the export goes away. */
  readonly requests = new Set<AbortController>();
  isGone = false;

  constructor(opened: BlockExport) {
    this.export = opened;
    opened.enter(this);
  }

  disconnect(): void {
    this.isGone = true;
    for (const request of this.requests) request.abort();
    this.export.leave(this);
  }
}

interface Answer {
  readonly result?: unknown;
  readonly transfer?: Transferable[];
}

export class DataPort {
  readonly #init: Omit<DataPortInit, "port">;
  readonly #port: HeldPort;
  readonly #over: ((request: number) => void) | undefined;
  readonly #devices = new Map<number, OpenExport>();
  /** Requests under way. */
  readonly #running = new Map<number, AbortController>();
  #deviceCount = 0;
  #stopped: BlockError | null = null;
  #closesEngine = false;

  constructor({ port, ...init }: DataPortInit) {
    this.#init = init;
    // Not of a MessagePort, which nobody may hold.
    this.#over = port.over?.bind(port);
    this.#port = new HeldPort(
      port,
      (data) => this.#receive(data),
      () => this.#disconnect(),
    );
  }

  /** Tells the client; nothing is done for it any more. */
  stop(why: BlockError): void {
    this.#stopped = why;
    for (const request of this.#running.values()) request.abort();
    this.#post({ type: "engine-stopped", error: errorData(why) });
  }

  /** As stop(), but for the client that closes it, which is waiting for the answer. */
  engineClosed(why: BlockError): void {
    if (!this.#closesEngine) this.stop(why);
  }

  /** Closes what the client has open, and the port. */
  close(): void {
    for (const device of this.#devices.values()) device.disconnect();
    this.#devices.clear();
    for (const request of this.#running.values()) request.abort();
    this.#port.close();
  }

  #disconnect(): void {
    this.close();
    this.#init.onDisconnect();
  }

  #receive(data: unknown): void {
    let message: DataMessage;
    try {
      message = check(dataMessage, data);
    } catch (error) {
      this.#fail(requestNumberOf(data), error);
      return;
    }
    const { id, request } = message;
    if (request.op === "cancel") {
      this.#running.get(request.request)?.abort();
    } else if (request.op === "disconnect") {
      this.#disconnect();
    } else {
      this.#serve(id, request).catch(this.#init.onBug);
    }
  }

  async #serve(id: number, request: DataRequest): Promise<void> {
    const abort = new AbortController();
    try {
      if (this.#stopped) throw this.#stopped;
      if (this.#running.has(id)) throw new BlockError("EINVAL", `Request ${id} is under way`);
      if (this.#running.size >= REQUESTS_MAX) {
        throw new BlockError("EBUSY", `More than ${REQUESTS_MAX} requests are under way`);
      }
    } catch (error) {
      return this.#fail(id, error);
    }
    this.#running.set(id, abort);
    try {
      const { result, transfer } = await this.#run(request, abort);
      this.#post({ type: "done", id, result }, transfer);
    } catch (error) {
      this.#fail(id, error);
    } finally {
      this.#running.delete(id);
      this.#over?.(id);
    }
  }

  async #run(request: DataRequest, abort: AbortController): Promise<Answer> {
    switch (request.op) {
      case "open":
        return { result: this.#open(request.export) };
      case "close":
        this.#device(request.device).disconnect();
        this.#devices.delete(request.device);
        return {};
      case "read":
      case "write":
      case "write-zeroes":
      case "flush":
        return this.#io(request, abort);
      case "add-blob":
        return this.#addBlob(request.name, request.blob);
      case "remove-blob":
        this.#init.blobs.delete(request.name);
        return {};
      case "list-files":
        return { result: await this.#files().list() };
      case "get-file":
        this.#checkClosed(request.filename);
        return { result: await this.#files().get(request.filename) };
      case "remove-file":
        this.#checkClosed(request.filename);
        await this.#files().remove(request.filename);
        return {};
      case "open-monitor":
        this.#init.openMonitor(request.port, { text: request.text });
        return {};
      case "shutdown":
        this.#closesEngine = true;
        await this.#init.shutdown();
        return {};
      case "cancel":
      case "disconnect":
        assert(false, "these two are not answered");
    }
  }

  #open(id: string) {
    const opened = new OpenExport(this.#init.exports.get(id));
    const device = this.#deviceCount++;
    this.#devices.set(device, opened);
    const { writable, backend } = opened.export;
    return { device, size: backend.length, writable };
  }

  async #io(
    request: Extract<DataRequest, { op: "read" | "write" | "write-zeroes" | "flush" }>,
    abort: AbortController,
  ): Promise<Answer> {
    const device = this.#device(request.device);
    const { backend } = device.export;
    const options = { signal: abort.signal };
    device.requests.add(abort);
    try {
      if (request.op === "read") {
        checkBytes(request.bytes);
        const data = new Uint8Array(request.bytes);
        await backend.read(data, request.offset, options);
        return { result: data.buffer, transfer: [data.buffer] };
      }
      if (request.op === "flush") {
        await backend.flush();
        return {};
      }
      checkWritable(device.export);
      if (request.op === "write") {
        checkBytes(request.data.byteLength);
        await backend.write(new Uint8Array(request.data), request.offset, options);
      } else {
        const { offset, bytes, mayUnmap } = request;
        await backend.writeZeroes(offset, bytes, { ...options, mayUnmap });
      }
      return {};
    } catch (error) {
      // The user of a device that went away did not cancel anything.
      if (error instanceof BlockError && device.isGone) throw goneError(device.export);
      throw error;
    } finally {
      device.requests.delete(abort);
    }
  }

  #device(number: number): OpenExport {
    const device = this.#devices.get(number);
    if (!device) throw new BlockError("EINVAL", `There is no open device ${number}`);
    if (device.isGone) throw goneError(device.export);
    return device;
  }

  #addBlob(name: string, blob: Blob): Answer {
    if (this.#init.blobs.has(name)) {
      throw new BlockError("EEXIST", `There is a file '${name}' already; remove it first`);
    }
    this.#init.blobs.set(name, blob);
    return {};
  }

  #files(): FileStore {
    if (this.#init.files) return this.#init.files;
    throw new BlockError("ENOTSUP", "This engine has no store of files");
  }

  #checkClosed(filename: string): void {
    if (!this.#init.isFileOpen(filename)) return;
    throw new BlockError("EBUSY", `'${filename}' is open as a node: close that one first`);
  }

  #fail(id: number, error: unknown): void {
    if (error instanceof BlockError) this.#post({ type: "failed", id, error: errorData(error) });
    else this.#init.onBug(error);
  }

  #post(message: FromDataPort, transfer: Transferable[] = []): void {
    this.#port.post(message, transfer);
  }
}

export function errorData(error: BlockError): ErrorData {
  return { ...error.toQmp(), errno: error.errno };
}

function checkBytes(bytes: number): void {
  if (bytes <= REQUEST_BYTES_MAX) return;
  throw new BlockError(
    "EINVAL",
    `A request moves at most ${REQUEST_BYTES_MAX} bytes; this one is for ${bytes}`,
  );
}

function checkWritable({ id, writable }: BlockExport): void {
  if (writable) return;
  throw new BlockError("EACCES", `Export '${id}' is read only: it was added without 'writable'`);
}

function goneError({ id }: BlockExport): BlockError {
  return new BlockError("ENOMEDIUM", `Export '${id}' has been taken away`);
}

/** Of a message that is wrong otherwise; 2^53-1, which nobody uses, if even that is missing. */
function requestNumberOf(data: unknown): number {
  const id = typeof data === "object" && data !== null && "id" in data ? data.id : undefined;
  return typeof id === "number" ? id : Number.MAX_SAFE_INTEGER;
}
