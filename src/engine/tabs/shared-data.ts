/**
 * A client's data requests, whoever owns the disks: as DataClient, but what is outstanding when the
 * owner is lost is asked of the next one, and devices stay what they are.
 *
 *   request() ──▶ pending ──▶ sent to the owner ──▶ answered
 *                    ▲              │
 *                    └── lost ◀─────┘          acknowledged writes ──▶ kept until they are durable
 *
 * A read or a flush may be done again. So may a write that nobody has been told of: whatever else was
 * written to these bytes meanwhile was written at the same time, as far as anybody can tell.
 */

import { cancelable } from "../../base/cancelable.ts";
import type { DataRequester } from "../data-client.ts";
import type { DataRequest } from "../data-request.ts";
import type { DataReply, FromDataPort, OpenedDevice, Port, ResultOf } from "../protocol.ts";
import { clientError, QmpError } from "../qmp-error.ts";
import { KEPT_BYTES_MAX, KeptWrites } from "./kept-writes.ts";
import type { DurableNotice } from "./lobby.ts";

/** Well below what the engine allows. */
const REQUESTS_IN_FLIGHT = 16;

interface Pending {
  /** With the devices' numbers of this client. */
  readonly request: DataRequest;
  readonly signal: AbortSignal | undefined;
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: QmpError) => void;
}

interface SharedDevice {
  readonly exportId: string;
  /** The owner's number; null while there is none. */
  real: number | null;
  /** Why it is of no use any more. */
  gone: QmpError | null;
}

export class SharedData implements DataRequester {
  readonly kept = new KeptWrites();
  readonly blobs = new Map<string, Blob>();
  /** Of whom the kept writes were done. */
  epoch = 0;
  /** Something has been written: more is kept. */
  onKept: () => void = () => {};
  readonly #queue: Pending[] = [];
  /** By number; numbers are never used again. */
  readonly #sent = new Map<number, Pending>();
  readonly #devices = new Map<number, SharedDevice>();
  /** Exports of which unflushed writes are lost, and nobody has been told. */
  readonly #lost = new Set<string>();
  #port: Port | null = null;
  /** Devices come before all else. */
  #isReopening = false;
  #sentCount = 0;
  #deviceCount = 0;
  #failure: QmpError | null = null;

  /** Something waits for an owner's answer. */
  get isWaiting(): boolean {
    return this.#sent.size > 0 || this.#queue.length > 0;
  }

  request<Request extends DataRequest>(
    request: Request,
    _transfer: Transferable[] = [],
    signal?: AbortSignal,
  ): Promise<ResultOf<Request["op"]>> {
    if (this.#failure) return Promise.reject(this.#failure);
    if (signal?.aborted) return Promise.reject(canceled());
    let pending: Pending;
    return cancelable(
      signal,
      () => this.#cancel(pending),
      (resolve, reject) => {
        pending = { request, signal, resolve: resolve as Pending["resolve"], reject };
        this.#queue.push(pending);
        this.#pump();
      },
    );
  }

  /** The owner can be talked to. All devices are opened anew; then what waits is sent. */
  async connect(port: Port, epoch: number): Promise<void> {
    this.#port = port;
    if (this.epoch !== epoch) this.kept.startAnew();
    this.epoch = epoch;
    port.onmessage = ({ data }) => this.#receive(data as FromDataPort);
    const devices = [...this.#devices.values()].filter((device) => device.gone === null);
    this.#isReopening = true;
    await Promise.all(devices.map((device) => this.#reopen(port, device)));
    if (this.#port !== port) return;
    this.#isReopening = false;
    this.#pump();
  }

  /** The owner is gone: what it has not answered waits for the next one. */
  disconnect(): void {
    const port = this.#port;
    if (!port) return;
    port.onmessage = null;
    this.#port = null;
    for (const device of this.#devices.values()) device.real = null;
    const again = [...this.#sent.values()].filter(({ request }) => !isReopening(request));
    for (const pending of this.#sent.values())
      if (isReopening(pending.request)) pending.resolve(null);
    this.#sent.clear();
    this.#queue.unshift(...again);
    for (const pending of again) if (pending.signal?.aborted) this.#cancel(pending);
  }

  durable({ exports, upTo, reply }: DurableNotice, client: string): void {
    this.kept.durable(exports, upTo);
    if (reply?.client === client) this.#answer({ type: "done", id: reply.id, result: undefined });
    this.#pump();
  }

  /** Unflushed writes of these exports are gone: the next flush says so. */
  lose(exports: readonly string[]): void {
    for (const id of exports) this.#lost.add(id);
  }

  /** The wait for room is over, for better or worse. */
  giveUpKept(): void {
    this.lose(this.kept.exports);
    this.kept.clear();
    this.#pump();
  }

  /** Rejects all that waits, and all that comes. */
  fail(failure: QmpError): void {
    this.#failure ??= failure;
    this.#port = null;
    for (const { reject } of [...this.#sent.values(), ...this.#queue.splice(0)]) reject(failure);
    this.#sent.clear();
  }

  /** Says good-bye to the owner. */
  leave(): void {
    this.#port?.postMessage({ id: 0, request: { op: "disconnect" } }, []);
  }

  #cancel(pending: Pending): void {
    const at = this.#queue.indexOf(pending);
    if (at >= 0) {
      this.#queue.splice(at, 1);
      return pending.reject(canceled());
    }
    for (const [id, sent] of this.#sent) {
      if (sent !== pending) continue;
      this.#port?.postMessage({ id: 0, request: { op: "cancel", request: id } }, []);
    }
  }

  #pump(): void {
    if (this.#isReopening) return;
    while (this.#port && this.#sent.size < REQUESTS_IN_FLIGHT && this.#queue.length > 0) {
      if (isWrite(this.#queue[0]!.request) && this.kept.bytes >= KEPT_BYTES_MAX) return;
      this.#send(this.#port, this.#queue.shift()!);
    }
  }

  #send(port: Port, pending: Pending): void {
    let { request } = pending;
    if ("device" in request) {
      const device = this.#devices.get(request.device);
      if (!device) {
        const text = `There is no open device ${request.device}`;
        return pending.reject(clientError("EINVAL", text));
      }
      if (device.gone) return pending.reject(device.gone);
      if (request.op === "flush" && this.#lost.delete(device.exportId)) {
        const text = `Writes to export '${device.exportId}' that had not been flushed are lost: the tab that had the disks is gone`;
        return pending.reject(clientError("EIO", text));
      }
      request = { ...request, device: device.real! };
    }
    const id = ++this.#sentCount;
    this.#sent.set(id, pending);
    // The original is kept: it may have to be sent again.
    const transfer: Transferable[] = [];
    if (request.op === "write") {
      request = { ...request, data: request.data.slice(0) };
      transfer.push(request.data);
    }
    port.postMessage({ id, request }, transfer);
  }

  #reopen(port: Port, device: SharedDevice): Promise<void> {
    return new Promise((resolve) => {
      const request = { op: "open", export: device.exportId, again: true } as const;
      const pending: Pending = {
        request,
        signal: undefined,
        resolve: (value) => {
          device.real = (value as OpenedDevice | null)?.device ?? null;
          resolve();
        },
        reject: (reason) => {
          device.gone = clientError("ENOMEDIUM", `The next tab could not open it: ${reason.desc}`);
          resolve();
        },
      };
      const id = ++this.#sentCount;
      this.#sent.set(id, pending);
      port.postMessage({ id, request: { op: "open", export: device.exportId } }, []);
    });
  }

  #receive(message: FromDataPort): void {
    if (message.type === "engine-stopped") this.#stopped(new QmpError(message.error));
    else this.#answer(message);
    this.#pump();
  }

  /** It answers nothing that is under way, and says no to the rest; the next owner may be better. */
  #stopped(why: QmpError): void {
    const sent = [...this.#sent.values()];
    this.#sent.clear();
    for (const { reject } of sent) reject(why);
  }

  #answer(reply: DataReply): void {
    const pending = this.#sent.get(reply.id);
    if (!pending) return;
    this.#sent.delete(reply.id);
    if (reply.type === "failed") return pending.reject(new QmpError(reply.error));
    pending.resolve(this.#done(pending.request, reply));
  }

  /** @returns the result as this client has it */
  #done(request: DataRequest, { result, order }: Extract<DataReply, { type: "done" }>): unknown {
    if (request.op === "open" && !isReopening(request)) {
      const { device: real, ...opened } = result as OpenedDevice;
      const device = this.#deviceCount++;
      this.#devices.set(device, { exportId: request.export, real, gone: null });
      return { ...opened, device };
    }
    if (request.op === "close") this.#devices.delete(request.device);
    if (request.op === "add-blob") this.blobs.set(request.name, request.blob);
    if (request.op === "remove-blob") this.blobs.delete(request.name);
    if (isWrite(request) && order !== undefined) this.#keep(request, order);
    return result;
  }

  #keep(request: Extract<DataRequest, { op: "write" | "write-zeroes" }>, order: number): void {
    const exportId = this.#devices.get(request.device)?.exportId;
    if (exportId === undefined) return;
    const { offset } = request;
    const where = { export: exportId, order, offset };
    if (request.op === "write") {
      const { data } = request;
      this.kept.add({ ...where, bytes: data.byteLength, data, mayUnmap: false });
    } else {
      const { bytes, mayUnmap } = request;
      this.kept.add({ ...where, bytes, data: null, mayUnmap });
    }
    this.onKept();
  }
}

function isWrite(
  request: DataRequest,
): request is Extract<DataRequest, { op: "write" | "write-zeroes" }> {
  return request.op === "write" || request.op === "write-zeroes";
}

/** Of this client itself, for a device that somebody has open. */
function isReopening(request: DataRequest): boolean {
  return request.op === "open" && "again" in request;
}

function canceled(): QmpError {
  return clientError("ECANCELED", "Operation canceled");
}
