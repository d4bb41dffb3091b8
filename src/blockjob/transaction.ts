/**
 * Several changes as one: all of them, or none (QEMU: transaction_action() and blockdev.c).
 *
 *   prepare a ─▶ prepare b ─▶ prepare c ─▶ commit c, b, a ─▶ clean c, b, a
 *                                 │
 *                          fails: └──────▶ abort b, a     ─▶ clean b, a
 *
 * Every action prepares by really doing its part, in such a way that it can be taken back; what only
 * starts to show later, a job for example, is started by commit. Its nodes are kept drained from its
 * prepare to its clean, so no guest sees a half of it. All cleans begin in one turn: what they end at once counts at
 * once, also for who keeps a record of it (src/block/link-changes.ts).
 */

import { BlockError } from "../base/errors.ts";
import { settleAll } from "../base/settle.ts";

/** One change. An action whose prepare() throws has taken everything back by itself. */
export interface TransactionAction {
  /** @throws BlockError to call the whole transaction off */
  prepare(): Promise<void>;
  /** All have been prepared. Should not fail: nothing is taken back any more. */
  commit?(): void | Promise<void>;
  /** Another one could not be prepared. Takes back what prepare() did. */
  abort?(): void | Promise<void>;
  /** Right after all commits, or all aborts. Ends its drained sections before it waits for anything. */
  clean?(): void | Promise<void>;
}

/**
 * Resolves when all actions have been done. Whatever fails, every action that was prepared is
 * cleaned: a drained section that lasted would hold guests up for ever.
 *
 * @throws BlockError of the first action that could not be prepared; nothing has changed then, or the
 *   error tells of what could not be taken back. Else of the first commit or clean that failed
 */
export async function runTransaction(actions: Iterable<TransactionAction>): Promise<void> {
  /** Last first: the order in which they end, either way. */
  const prepared: TransactionAction[] = [];
  const failures: BlockError[] = [];
  const attempt = async (step: () => void | Promise<void>) => {
    try {
      await step();
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      failures.push(error);
    }
  };
  /** Of all of them, whatever becomes of one. */
  const step = async (name: "commit" | "abort") => {
    for (const action of prepared) await attempt(() => action[name]?.());
  };
  const clean = () => settleAll(prepared.map((action) => attempt(() => action.clean?.())));
  try {
    for (const action of actions) {
      await action.prepare();
      prepared.unshift(action);
    }
  } catch (error) {
    await step("abort");
    await clean();
    throw withFailures(error, failures);
  }
  await step("commit");
  await clean();
  if (failures[0]) throw failures[0];
}

function withFailures(error: unknown, failures: readonly BlockError[]): unknown {
  const [first] = failures;
  if (!first || !(error instanceof BlockError)) return error;
  return new BlockError(
    error.errno,
    `${error.message}; and not all could be made as it was: ${first.message}`,
    { class: error.class, cause: error },
  );
}
