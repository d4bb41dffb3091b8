/**
 * What a job does about an I/O error: policies, as data (QEMU: BlockdevOnError in
 * qapi/block-core.json, blk_get_error_action() in block/block-backend.c).
 */

import type { BlockError } from "../base/errors.ts";

export const ON_ERROR_POLICIES = ["report", "ignore", "enospc", "stop", "auto"] as const;
export type OnErrorPolicy = (typeof ON_ERROR_POLICIES)[number];

/** report: the job fails. ignore: it goes on. stop: it pauses, and tries again when resumed. */
export type ErrorAction = "report" | "ignore" | "stop";

/** The action for [a full store, any other error]. */
const ACTIONS: Readonly<Record<OnErrorPolicy, readonly [ErrorAction, ErrorAction]>> = {
  report: ["report", "report"],
  ignore: ["ignore", "ignore"],
  stop: ["stop", "stop"],
  enospc: ["stop", "report"],
  auto: ["stop", "report"],
};

export function actionFor(policy: OnErrorPolicy, error: BlockError): ErrorAction {
  return ACTIONS[policy][error.errno === "ENOSPC" ? 0 : 1];
}

/** QEMU: BlockDeviceIoStatus. */
export type IoStatus = "ok" | "failed" | "nospace";
