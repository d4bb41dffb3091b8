/**
 * Waits for all, then throws the first failure in list order.
 *
 * Not Promise.all(): that one answers at the first failure, while the rest still write into buffers
 * that the caller believes to be its own again.
 */
export async function settleAll(promises: readonly Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(promises);
  for (const result of results) if (result.status === "rejected") throw result.reason;
}
