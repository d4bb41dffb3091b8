/**
 * Trace points: what can be watched of the engine at work, without a debugger. A point that is off
 * costs one look at an object; its arguments are not even worked out:
 *
 *     trace.job_apply_verb?.(id, verb, status, allowed);
 *
 * Names are QEMU's where it has such a point (trace-events files), and so is the line that a point
 * becomes (util/log.c, scripts/tracetool/backend/log.py). Who wants to see what is decided by patterns.
 */

export type TraceValue = string | number | boolean;

/** Every point, and what it tells, in this order. */
export const TRACE_POINTS = {
  // Jobs.
  job_state_transition: ["job", "from", "to"],
  job_apply_verb: ["job", "verb", "status", "allowed"],
  job_completed: ["job", "error"],
  // Nodes and requests at their roots.
  bdrv_open_common: ["node", "driver", "readOnly"],
  bdrv_close: ["node", "driver"],
  blk_root_attach: ["user", "node"],
  blk_root_detach: ["user", "node"],
  blk_co_preadv: ["user", "node", "offset", "bytes"],
  blk_co_pwritev: ["user", "node", "offset", "bytes"],
  blk_co_pwrite_zeroes: ["user", "node", "offset", "bytes"],
  blk_co_pdiscard: ["user", "node", "offset", "bytes"],
  blk_co_flush: ["user", "node"],
  // What jobs copy.
  stream_one_iteration: ["job", "offset", "bytes"],
  commit_one_iteration: ["job", "offset", "bytes"],
  mirror_one_iteration: ["job", "offset", "bytes"],
  block_copy_process: ["node", "offset", "bytes"],
  // Monitors.
  handle_qmp_command: ["request"],
  monitor_qmp_respond: ["reply"],
  monitor_protocol_event_emit: ["event", "data"],
  // NBD.
  nbd_negotiate_success: ["export"],
  nbd_receive_request: ["export", "type", "offset", "bytes"],
  nbd_co_send_error: ["export", "error"],
} as const satisfies Record<string, readonly string[]>;

export type TracePoint = keyof typeof TRACE_POINTS;

type Arguments<Names extends readonly string[]> = { [Index in keyof Names]: TraceValue };

/** The points that are on. */
export type Trace = {
  [Point in TracePoint]?: (...values: Arguments<(typeof TRACE_POINTS)[Point]>) => void;
};

/** One that is on was passed. */
export type TraceSink = (point: TracePoint, values: readonly TraceValue[]) => void;

export const POINT_NAMES = Object.keys(TRACE_POINTS) as TracePoint[];

/** Switches points on and off. Others may hold the trace already: it stays the same object. */
export function switchTrace(trace: Trace, points: Iterable<TracePoint>, sink: TraceSink | null) {
  for (const point of points) {
    if (sink) trace[point] = (...values: TraceValue[]) => sink(point, values);
    else delete trace[point];
  }
}

/**
 * The points that a pattern stands for: a name in which `*` is any text and `?` any character.
 *
 * @returns none if there is no such point
 */
export function matchPoints(pattern: string): TracePoint[] {
  const source = pattern
    .replace(/[\\^$.|+()[\]{}]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".");
  const expression = new RegExp(`^${source}$`);
  return POINT_NAMES.filter((name) => expression.test(name));
}

/** A point as a line: `name job 's0' from 'created' to 'running'`. Texts may not break the line. */
export function traceText(point: TracePoint, values: readonly TraceValue[]): string {
  const told = TRACE_POINTS[point].map((name, i) => `${name} ${shown(values[i]!)}`);
  return `${point} ${told.join(" ")}`;
}

function shown(value: TraceValue): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
