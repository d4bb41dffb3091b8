import fc from "fast-check";
import { expect, it } from "vitest";
import { JsonStream } from "../../src/qmp/json-stream.ts";

it("finds the same values wherever the text is cut", () => {
  const values = fc.array(
    fc.oneof(fc.dictionary(fc.string(), fc.jsonValue()), fc.array(fc.jsonValue())),
  );
  const cuts = fc.infiniteStream(fc.integer({ min: 1, max: 7 }));
  fc.assert(
    fc.property(values, cuts, (sent, sizes) => {
      const stream = new JsonStream();
      const text = sent.map((value) => JSON.stringify(value)).join("\n");
      const found = [];
      for (let at = 0; at < text.length; ) {
        const end = at + sizes.next().value;
        found.push(...stream.push(text.slice(at, end)));
        at = end;
      }
      // Not what was generated: JSON has no -0.
      expect(found).toEqual(sent.map((value) => ({ value: JSON.parse(JSON.stringify(value)) })));
    }),
  );
});

it("goes on with the next value after any rubbish that ends its line", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary-ascii", maxLength: 40 }), (rubbish) => {
      const stream = new JsonStream();
      stream.push(rubbish);
      // A new line ends a string, brackets end the rest.
      stream.push(`\n${"]".repeat(40)}\n`);
      expect(stream.push('{"a": 1}')).toEqual([{ value: { a: 1 } }]);
    }),
  );
});
