import { expect, test } from "vitest";
import { problemOf, stopProblem } from "../../web/hints.ts";

const URL = "http://127.0.0.1:5170/template/0/base.raw";

test("only what a server was asked for has a hint about the server", () => {
  const unreachable = `Reading bytes 0-511 of '${URL}' failed: the server is unreachable`;
  expect(hint(unreachable, "EIO")).toMatch(/server is running/);
  expect(hint(`Reading bytes 0-0 of '${URL}' failed: not found`, "ENOENT")).toMatch(/serves it/);
  expect(hint("Writing 512 bytes at 0 of 'copy.qcow2' failed: unknown", "EIO")).toBeUndefined();
  expect(hint("There is no file 'copy.qcow2'", "ENOENT")).toBeUndefined();
});

test("a loss is not made light of", () => {
  const lost =
    "Writes to export 'domain-1-vda' that had not been flushed are lost: the tab that had the disks is gone";
  expect(hint(lost, "EIO")).toBeUndefined();
});

test("an image that this page has open is not said to be open in another tab", () => {
  expect(hint("'copy.qcow2' is open as a node: close that one first", "EBUSY")).toBeUndefined();
});

test("a job that stands still says what may be done about it", () => {
  const stopped = { operation: "write", reason: "Writing to 'a.qcow2' failed", errno: "ENOSPC" };
  const { text, hint } = stopProblem({ ...stopped, operation: "write" }, "paused");
  expect(text).toBe("Paused: Writing to 'a.qcow2' failed");
  expect(hint).toMatch(/no more room.*Resume tries the same bytes again\.$/);
  const unknown = stopProblem({ operation: "read", reason: "Reading 'a' failed" }, "running");
  expect(unknown).toMatchObject({ text: "About to pause: Reading 'a' failed" });
  expect(unknown.hint).toBe("Resume tries the same bytes again.");
});

function hint(text: string, errno: string): string | undefined {
  return problemOf(Object.assign(new Error(text), { errno })).hint;
}
