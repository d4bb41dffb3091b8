/** What a client may ask on its data port, as schemas: for the engine, which checks it. */

import * as v from "valibot";
import { size } from "../base/check.ts";

/** Every request but "cancel" and "disconnect" is answered once. */
const REQUESTS = v.variant("op", [
  /** Opens an export: the answer's `device` stands for it in what follows. */
  v.strictObject({ op: v.literal("open"), export: v.string() }),
  v.strictObject({ op: v.literal("close"), device: size }),
  v.strictObject({ op: v.literal("read"), device: size, offset: size, bytes: size }),
  v.strictObject({
    op: v.literal("write"),
    device: size,
    offset: size,
    data: v.instance(ArrayBuffer),
  }),
  v.strictObject({
    op: v.literal("write-zeroes"),
    device: size,
    offset: size,
    bytes: size,
    mayUnmap: v.boolean(),
  }),
  v.strictObject({ op: v.literal("flush"), device: size }),
  /** Gives up a request; that one is answered, with ECANCELED if it was not too late. */
  v.strictObject({ op: v.literal("cancel"), request: size }),
  v.strictObject({ op: v.literal("add-blob"), name: v.string(), blob: v.instance(Blob) }),
  v.strictObject({ op: v.literal("remove-blob"), name: v.string() }),
  v.strictObject({ op: v.literal("list-files") }),
  v.strictObject({ op: v.literal("get-file"), filename: v.string() }),
  v.strictObject({ op: v.literal("remove-file"), filename: v.string() }),
  /** Makes a QMP monitor of the engine's end of a channel. */
  v.strictObject({
    op: v.literal("open-monitor"),
    port: v.instance(MessagePort),
    text: v.boolean(),
  }),
  /** Ends all jobs, flushes and closes all nodes. The engine is of no use afterwards. */
  v.strictObject({ op: v.literal("shutdown") }),
  /** The client goes away: its devices are closed. */
  v.strictObject({ op: v.literal("disconnect") }),
]);

export type DataRequest = v.InferOutput<typeof REQUESTS>;

export const dataMessage = v.strictObject({ id: size, request: REQUESTS });
export type DataMessage = v.InferOutput<typeof dataMessage>;
