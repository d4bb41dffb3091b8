/**
 * Several changes as one: all of them, or none (QEMU: transaction_action() and blockdev.c).
 *
 *   prepare a ─▶ prepare b ─▶ prepare c ─▶ commit c, b, a ─▶ clean c, b, a
 *                                 │
 *                          fails: └──────▶ abort b, a     ─▶ clean b, a
 *
 * Every action prepares by really doing its part, in such a way that it can be taken back; what only
 * starts to show later, a job for example, is started by commit. Its nodes are kept drained from its
 * prepare to its clean, so no guest sees a half of it.
 */

/** One change. An action whose prepare() throws has taken everything back by itself. */
export interface TransactionAction {
  /** @throws BlockError to call the whole transaction off */
  prepare(): Promise<void>;
  /** All have been prepared. Must not fail. */
  commit?(): void | Promise<void>;
  /** Another one could not be prepared. Takes back what prepare() did. Must not fail. */
  abort?(): void | Promise<void>;
  /** Right after all commits, or all aborts. */
  clean?(): void | Promise<void>;
}

/**
 * Resolves when all actions have been done.
 *
 * @throws BlockError of the first action that could not be prepared; nothing has changed then
 */
export async function runTransaction(actions: Iterable<TransactionAction>): Promise<void> {
  /** Last first: the order in which they end, either way. */
  const prepared: TransactionAction[] = [];
  try {
    for (const action of actions) {
      await action.prepare();
      prepared.unshift(action);
    }
  } catch (error) {
    for (const action of prepared) await action.abort?.();
    for (const action of prepared) await action.clean?.();
    throw error;
  }
  for (const action of prepared) await action.commit?.();
  for (const action of prepared) await action.clean?.();
}
