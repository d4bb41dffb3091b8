import { expect, it } from "vitest";
import { messageText } from "../../../src/qmp/json/writer.ts";

it("writes a message in one line, in ASCII, as QEMU does", () => {
  const message = {
    return: [1, -1, 1.5, 2n ** 63n, true, null, "", [], {}],
    id: 'é😀"\\\b\f\n\r\t\u0000\u007f/\ud800\uffff',
    left: undefined,
  };
  expect(messageText(message)).toBe(
    '{"return": [1, -1, 1.5, 9223372036854775808, true, null, "", [], {}], ' +
      '"id": "\\u00E9\\uD83D\\uDE00\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u007F/\\uFFFD\\uFFFD"}\r\n',
  );
});

it("writes it with a member a line where that is asked for", () => {
  const message = { QMP: { capabilities: ["oob"], a: {}, b: [] } };
  const lines = [
    "{",
    '    "QMP": {',
    '        "capabilities": [',
    '            "oob"',
    "        ],",
    '        "a": {',
    "        },",
    '        "b": [',
    "        ]",
    "    }",
    "}",
    "",
  ];
  expect(messageText(message, true)).toBe(lines.join("\r\n"));
});
