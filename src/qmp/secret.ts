/** Keeps what secrets are made of out of what people read. */

/** A request as it may be shown: without what a secret is made of. */
export function withoutSecrets(request: unknown): unknown {
  if (typeof request !== "object" || request === null) return request;
  const { arguments: args, ...verbs } = request as Record<string, unknown>;
  if (typeof args !== "object" || args === null || !("data" in args)) return request;
  if (!Object.values(verbs).includes("object-add")) return request;
  return { ...request, arguments: { ...args, data: "(not shown)" } };
}
