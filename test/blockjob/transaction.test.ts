import { expect, it } from "vitest";
import { BlockError } from "../../src/base/errors.ts";
import { runTransaction, type TransactionAction } from "../../src/blockjob/transaction.ts";

/** Actions that write down what is asked of them; that of the name in `fails` cannot be prepared. */
function recorder(names: string[], fails?: string) {
  const story: string[] = [];
  const actions = names.map((name): TransactionAction => {
    const note = (what: string) => async () => {
      await Promise.resolve();
      story.push(`${what} ${name}`);
    };
    return {
      async prepare() {
        if (name === fails) throw new BlockError("EIO", `no ${name}`);
        await note("prepare")();
      },
      commit: note("commit"),
      abort: note("abort"),
      clean: note("clean"),
    };
  });
  return { actions, story };
}

it("prepares first to last, and commits and cleans last to first", async () => {
  const { actions, story } = recorder(["a", "b", "c"]);
  await runTransaction(actions);
  expect(story.join(", ")).toBe(
    "prepare a, prepare b, prepare c, commit c, commit b, commit a, clean c, clean b, clean a",
  );
});

it("aborts what was prepared, last to first, and tells of the first failure only", async () => {
  const { actions, story } = recorder(["a", "b", "c", "d"], "c");
  await expect(runTransaction(actions)).rejects.toThrow("no c");
  expect(story.join(", ")).toBe("prepare a, prepare b, abort b, abort a, clean b, clean a");
});

it("leaves everything alone when the first one fails, and when there is none", async () => {
  const { actions, story } = recorder(["a", "b"], "a");
  await expect(runTransaction(actions)).rejects.toThrow("no a");
  await runTransaction([]);
  expect(story).toEqual([]);
});

it("aborts and cleans all that was prepared, whatever goes wrong on the way", async () => {
  const { actions, story } = recorder(["a", "b", "c", "d"], "d");
  actions[1]!.abort = async () => {
    throw new BlockError("EIO", "b cannot be taken back");
  };
  actions[2]!.clean = async () => {
    throw new BlockError("EIO", "c cannot be cleaned");
  };
  await expect(runTransaction(actions)).rejects.toThrow("no d");
  expect(story.join(", ")).toBe(
    "prepare a, prepare b, prepare c, abort c, abort a, clean b, clean a",
  );
});

it("commits and cleans all, and then tells what went wrong", async () => {
  const { actions, story } = recorder(["a", "b", "c"]);
  actions[2]!.commit = async () => {
    throw new BlockError("EIO", "c cannot be committed");
  };
  await expect(runTransaction(actions)).rejects.toThrow("c cannot be committed");
  expect(story.slice(3).join(", ")).toBe("commit b, commit a, clean c, clean b, clean a");
});
