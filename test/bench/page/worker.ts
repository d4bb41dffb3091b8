/** The bench's worker: what can be measured in a browser, one operation per call. */

import { runJob } from "./jobs.ts";
import { journalJob } from "./journal.ts";
import { kernelScan } from "./kernels.ts";
import { latency } from "./latency.ts";
import { copyFile, fetchToFile, importFile, removeFile } from "./raw-io.ts";
import { streamImage } from "./stream.ts";

export interface Call {
  readonly name: string;
  readonly argument: unknown;
  readonly port: MessagePort;
}

export type Reply = { readonly result: unknown } | { readonly error: string };

const OPERATIONS = {
  copyFile,
  fetchToFile,
  importFile,
  journalJob,
  kernelScan,
  latency,
  removeFile,
  runJob,
  streamImage,
};

/** Name -> argument and result, for whoever calls from Node. */
export type Operations = typeof OPERATIONS;

addEventListener("message", async ({ data }: MessageEvent<Call>) => {
  const { name, argument, port } = data;
  const operation = OPERATIONS[name as keyof Operations] as (argument: unknown) => unknown;
  let reply: Reply;
  try {
    reply = { result: await operation(argument) };
  } catch (error) {
    reply = { error: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
  port.postMessage(reply);
});
