/**
 * A client's data requests, whoever owns the disks: as DataClient, but what is outstanding when the
 * owner is lost is asked of the next one, and devices stay what they are.
 *
 *   request() ──▶ pending ──▶ sent to the owner ──▶ answered
 *                    ▲              │
 *                    └── lost ◀─────┘          acknowledged writes ──▶ kept until they are durable
 *
 * A device whose disk the owner cannot open yet waits, with all that is asked of it; the others go on.
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
import type { DurableNotice, ReleasedNotice, Welcome } from "./lobby.ts";

/** Well below what the engine allows. */
const REQUESTS_IN_FLIGHT = 16;

interface Pending {
  /** With the devices' numbers of this client. */
  readonly request: DataRequest;
  readonly signal: AbortSignal | undefined;
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: QmpError) => void;
  /** Of its device, from when it is sent: by the time of the answer that one may have been closed. */
  exportId?: string;
}

interface SharedDevice {
  readonly exportId: string;
  /** The owner's number; null while it has not opened it. */
  real: number | null;
  /** Why it is of no use any more. */
  gone: QmpError | null;
  /** Unflushed writes to its export are lost, whoever's, and it has not been told. */
  hasLost: boolean;
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
  /** Exports of which unflushed writes are lost, and there was no device to be told: the next one will be. */
  readonly #lost = new Set<string>();
  #held = new Set<string>();
  /** Exports that were held, and the owner that has told that they need not be any more. */
  readonly #released = new Map<string, number>();
  #port: Port | null = null;
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

  /** An owner has let this client in. */
  welcome({ lost, held }: Welcome, epoch: number): void {
    // Word of it may have come before.
    const isReleased = (id: string) => this.#released.get(id) === epoch;
    this.#held = new Set(held.filter((id) => !isReleased(id)));
    // Of what it is told to be lost nobody will tell it anything more.
    const kept = [...this.#held].filter((id) => !lost.includes(id));
    this.kept.welcome(epoch, kept);
    this.epoch = epoch;
    this.lose(lost);
  }

  /** The owner can be talked to. All devices are opened anew; what waits for one is sent when it is there. */
  connect(port: Port): void {
    this.#port = port;
    port.onmessage = ({ data }) => this.#receive(data as FromDataPort);
    for (const device of this.#devices.values()) {
      if (device.gone === null) this.#reopen(port, device);
    }
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

  durable({ exports, writes, reply }: DurableNotice, client: string): void {
    this.kept.durable(exports, writes);
    if (reply?.client === client) this.#answer({ type: "done", id: reply.id, result: undefined });
    this.#pump();
  }

  /** Exports that the owner cannot open yet. */
  get held(): readonly string[] {
    return [...this.#held];
  }

  released({ epoch, export: id, isLost }: ReleasedNotice): void {
    this.#released.set(id, epoch);
    if (epoch !== this.epoch) return;
    this.#held.delete(id);
    const exports = this.kept.release([id]);
    if (isLost) this.lose(exports);
    this.#pump();
  }

  /** Unflushed writes of these exports are gone: the next flush of each device says so. */
  lose(exports: readonly string[]): void {
    for (const id of exports) {
      const devices = this.#devicesOf(id);
      for (const device of devices) device.hasLost = true;
      if (devices.length === 0) this.#lost.add(id);
    }
  }

  #devicesOf(exportId: string): readonly SharedDevice[] {
    return [...this.#devices.values()].filter((device) => device.exportId === exportId);
  }

  /** What it has not been told is for the next one that is opened. */
  #forget(number: number): void {
    const device = this.#devices.get(number);
    this.#devices.delete(number);
    if (device?.hasLost && this.#devicesOf(device.exportId).length === 0) {
      this.#lost.add(device.exportId);
    }
  }

  /** The wait for room is over, for better or worse. */
  giveUpKept(): void {
    this.lose(this.kept.exports);
    this.kept.giveUp();
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
    for (let at = 0; this.#port && this.#inFlight < REQUESTS_IN_FLIGHT; ) {
      const pending = this.#queue[at];
      if (!pending) return;
      if (this.#waitsForDevice(pending.request)) at++;
      else if (isWrite(pending.request) && this.kept.bytes >= KEPT_BYTES_MAX) return;
      else {
        this.#queue.splice(at, 1);
        this.#send(this.#port, pending);
      }
    }
  }

  /** Opening may take for ever: nobody else waits for it. */
  get #inFlight(): number {
    return [...this.#sent.values()].filter(({ request }) => request.op !== "open").length;
  }

  /** To be closed it need not be there. */
  #waitsForDevice(request: DataRequest): boolean {
    const device = "device" in request ? this.#devices.get(request.device) : undefined;
    if (!device || device.gone || request.op === "close") return false;
    // Before it is heard what has become of older writes nobody can be told that a flush has made them last.
    return device.real === null || this.kept.holds(device.exportId);
  }

  #send(port: Port, pending: Pending): void {
    let { request } = pending;
    if ("device" in request) {
      const device = this.#devices.get(request.device);
      if (!device) {
        const text = `There is no open device ${request.device}`;
        return pending.reject(clientError("EINVAL", text));
      }
      pending.exportId = device.exportId;
      if (request.op === "flush" && device.hasLost) {
        device.hasLost = false;
        const text = `Writes to export '${device.exportId}' that had not been flushed are lost: the tab that had the disks is gone`;
        return pending.reject(clientError("EIO", text));
      }
      if (device.gone) return pending.reject(device.gone);
      if (device.real === null) {
        this.#forget(request.device);
        return pending.resolve(undefined);
      }
      request = { ...request, device: device.real };
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

  #reopen(port: Port, device: SharedDevice): void {
    const { exportId } = device;
    const request = { op: "open", export: exportId, again: true } as const;
    const pending: Pending = {
      request,
      signal: undefined,
      resolve: (value) => {
        device.real = (value as OpenedDevice | null)?.device ?? null;
        const isClosed = ![...this.#devices.values()].includes(device);
        if (isClosed && device.real !== null) this.#sendClose(port, device.real);
      },
      reject: (reason) => {
        device.gone = clientError("ENOMEDIUM", `The next tab could not open it: ${reason.desc}`);
        // It has been given up, whether or not that has been heard.
        this.lose(this.kept.release([exportId]));
      },
    };
    const id = ++this.#sentCount;
    this.#sent.set(id, pending);
    port.postMessage({ id, request: { op: "open", export: exportId } }, []);
  }

  #sendClose(port: Port, device: number): void {
    port.postMessage({ id: ++this.#sentCount, request: { op: "close", device } }, []);
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
    for (const pending of sent) {
      // Whatever has stopped, the disk may be there with the next one.
      if (isReopening(pending.request)) pending.resolve(null);
      else pending.reject(why);
    }
  }

  #answer(reply: DataReply): void {
    const pending = this.#sent.get(reply.id);
    if (!pending) return;
    this.#sent.delete(reply.id);
    if (reply.type === "failed") return pending.reject(new QmpError(reply.error));
    pending.resolve(this.#done(pending, reply));
  }

  /** @returns the result as this client has it */
  #done(
    { request, exportId }: Pending,
    { result, order }: Extract<DataReply, { type: "done" }>,
  ): unknown {
    if (request.op === "open" && !isReopening(request)) {
      const { device: real, ...opened } = result as OpenedDevice;
      const device = this.#deviceCount++;
      const hasLost = this.#lost.delete(request.export);
      this.#devices.set(device, { exportId: request.export, real, gone: null, hasLost });
      return { ...opened, device };
    }
    if (request.op === "close") this.#forget(request.device);
    if (request.op === "add-blob") this.blobs.set(request.name, request.blob);
    if (request.op === "remove-blob") this.blobs.delete(request.name);
    if (isWrite(request) && order !== undefined) this.#keep(request, exportId!, order);
    return result;
  }

  #keep(
    request: Extract<DataRequest, { op: "write" | "write-zeroes" }>,
    exportId: string,
    order: number,
  ): void {
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
