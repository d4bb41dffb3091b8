/**
 * Kinds of jobs on a domain, and which of them get along, as data. (libvirt: virDomainJob,
 * virDomainAgentJob and virDomainAsyncJob.) These jobs are turns of API calls, short but for the async
 * ones; block jobs are something else.
 *
 *     slot      holds                            at most
 *     normal    the right to change the domain   one call, queries too: they use the monitor as well
 *     agent     the same for what runs inside    one call, beside the normal one
 *     async     a long operation                 one; while it goes on, its mask says which classes
 *                                                may still have the normal slot
 */

export type JobSlot = "normal" | "agent" | "async";

export type JobClass =
  /** Changes nothing. */
  | "query"
  /** Ends the domain. Always allowed, and first in the queue. */
  | "destroy"
  /** Makes it stand still. */
  | "suspend"
  /** May change anything. */
  | "modify"
  /** Ends the async job. */
  | "abort"
  /** Changes what no async job minds: the speed of a block job. */
  | "modify-migration-safe";

export type AgentClass = "query" | "modify";

export type AsyncKind = "start" | "save" | "snapshot" | "backup";

/** While any async job goes on. That speed is among them libvirt has forgotten in its backups. */
const ALWAYS: readonly JobClass[] = ["destroy", "query", "modify-migration-safe"];

/** What may be done with a domain while an async job goes on. */
export const MASKS: Readonly<Record<AsyncKind, readonly JobClass[]>> = {
  start: ALWAYS,
  save: [...ALWAYS, "abort"],
  snapshot: [...ALWAYS, "abort"],
  backup: [...ALWAYS, "abort", "suspend", "modify"],
};

/** What a call wants. */
export type JobWish =
  | { readonly class: JobClass }
  | { readonly agent: AgentClass }
  /** The start of a long operation, which goes on in the async slot. */
  | { readonly class: "async"; readonly kind: AsyncKind }
  /** One step of it: has the normal slot whatever the mask says. */
  | { readonly class: "async-nested"; readonly kind: AsyncKind };

export function slotOf(wish: JobWish): JobSlot {
  if ("agent" in wish) return "agent";
  return wish.class === "async" ? "async" : "normal";
}

/** For people, and for errors: "modify", "agent query", "async backup". */
export function describeWish(wish: JobWish): string {
  if ("agent" in wish) return `agent ${wish.agent}`;
  return "kind" in wish ? `${wish.class} ${wish.kind}` : wish.class;
}

/** Let in whatever the limit of the queue; of an operation that has been let in, so are the steps. */
export function isExempt(wish: JobWish): boolean {
  return "class" in wish && ["destroy", "async", "async-nested"].includes(wish.class);
}
