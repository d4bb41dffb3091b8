import { expect, it } from "vitest";
import { InOrder } from "../../src/base/in-order.ts";

it("what is done early comes out in its turn, behind what failed, too", async () => {
  const order = new InOrder();
  const out: string[] = [];
  const parts = ["slow", "fails", "quick"].map((name) => {
    let end = () => {};
    const work = new Promise<string>((resolve, reject) => {
      end = () => (name === "fails" ? reject(new Error(name)) : resolve(name));
    });
    const seen = order.next(work).then(
      (result) => out.push(result),
      (error: Error) => out.push(`error: ${error.message}`),
    );
    return { end: () => end(), seen };
  });
  const [slow, fails, quick] = parts as [(typeof parts)[0], (typeof parts)[0], (typeof parts)[0]];
  quick.end();
  fails.end();
  await new Promise((resolve) => setImmediate(resolve));
  expect(out).toEqual([]);
  slow.end();
  await Promise.all([slow.seen, fails.seen, quick.seen]);
  expect(out).toEqual(["slow", "error: fails", "quick"]);
});
