/** The house rules hold, and the functions that say so can say no. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import * as tidy from "./tidy.ts";

const ROOT = join(import.meta.dirname, "..");
const CODE = ["src", "web", "test", "scripts"].flatMap(sourcesIn);

/** One rule, a file that breaks it in each line that has to be found, and one that keeps it. */
const RULES: readonly {
  readonly name: string;
  readonly check: (source: tidy.Source) => tidy.Problem[];
  readonly broken: readonly tidy.Source[];
  readonly kept: readonly tidy.Source[];
}[] = [
  {
    name: "imports in src/ go down",
    check: tidy.checkFloors,
    broken: [
      source("src/base/a.ts", 'import { Graph } from "../block/graph.ts";'),
      source("src/job/a.ts", 'import type { Kernel } from "../kernel/kernel.ts";'),
      source("src/block/a.ts", 'export * from "../drivers/protocol/memory.ts";'),
      source("src/block/a.ts", 'const late = await import("../engine/engine.ts");'),
      source("src/block/a.ts", 'import {\n  a,\n  b,\n} from "../qmp/schema.ts";'),
      source("src/engine/a.ts", 'import { page } from "../../web/store.ts";'),
      source("src/misc/a.ts", ""),
    ],
    kept: [
      source("src/block/a.ts", 'import { b } from "./b.ts";\nimport * as v from "valibot";'),
      source("src/engine/a.ts", 'import { Graph } from "../block/graph.ts";'),
      source("src/base/a.ts", '// import { Graph } from "../block/graph.ts";'),
      source("src/kernel/a.ts", 'const url = new URL("../../build/kernel.wasm", import.meta.url);'),
    ],
  },
  {
    name: "protocols, formats and filters do not know each other",
    check: tidy.checkDriverKinds,
    broken: [
      source("src/drivers/format/a.ts", 'import { file } from "../protocol/file.ts";'),
      source("src/drivers/filter/a.ts", 'import type { Q } from "../format/qcow2/driver.ts";'),
      source("src/drivers/protocol/a.ts", 'import { all } from "../index.ts";'),
    ],
    kept: [
      source("src/drivers/format/qcow2/a.ts", 'import { b } from "../inflate.ts";'),
      source("src/drivers/index.ts", 'import { file } from "./protocol/file.ts";'),
    ],
  },
  {
    name: "the page sees the client alone",
    check: tidy.checkPage,
    broken: [
      source("web/a.ts", 'import { MiB } from "../src/base/bytes.ts";'),
      source("web/a.ts", 'import { dispatch } from "../src/qmp/dispatch.ts";'),
    ],
    kept: [
      source("web/a.ts", 'import { connect } from "../src/engine/client.ts";'),
      source("web/a.ts", 'import type { Commands } from "../src/qmp/commands.ts";'),
      source("web/views/a.tsx", 'import { b } from "../store.ts";'),
    ],
  },
  {
    name: "time and chance are parameters",
    check: tidy.checkWorld,
    broken: [
      source("src/job/a.ts", "const start = Date.now();"),
      source("src/job/a.ts", ["const text = `$", "{new Date()}`;"].join("")),
      source("src/drivers/protocol/a.ts", "if (Math.random() < 0.5) retry();"),
      source("src/block/a.ts", "await new Promise((r) => setTimeout(r, 10));"),
      source("src/block/a.ts", "const id = crypto.randomUUID();"),
      source("src/block/a.ts", 'const x = /[`"]/; const t = performance.now();'),
    ],
    kept: [
      source("src/base/a.ts", "const start = Date.now();"),
      source(
        "src/job/a.ts",
        '// Date.now() is not for us\nclock.setTimer(5, say("Math.random()"));',
      ),
      source("web/a.ts", "requestAnimationFrame(draw);"),
    ],
  },
  {
    name: "browser globals are reached at the edges",
    check: tidy.checkBrowser,
    broken: [
      source("src/block/a.ts", "const root = await navigator.storage.getDirectory();"),
      source("src/qmp/a.ts", "window.alert(1);"),
      source("src/drivers/format/a.ts", "const answer = await fetch(url);"),
      source("src/engine/engine.ts", "document.title = name;"),
      source("src/drivers/filter/a.ts", "indexedDB.open(name);"),
    ],
    kept: [
      source("src/drivers/protocol/http.ts", "const answer = await fetch(url);"),
      source("src/engine/worker.ts", "self.onmessage = receive;"),
      source("src/block/a.ts", 'cache.fetch(1); const text = "the window"; // navigator'),
      source("src/block/a.ts", "interface A {\n  fetch: number;\n}"),
      source("src/block/a.ts", "const window = openWindow();\nreturn window.bytes;"),
    ],
  },
  {
    name: "Node is reached by its own driver alone",
    check: tidy.checkNode,
    broken: [
      source("src/block/a.ts", 'import { open } from "node:fs/promises";'),
      source("src/engine/worker.ts", "const home = process.env.HOME;"),
      source("web/a.ts", "const bytes = Buffer.from(text);"),
    ],
    kept: [source("src/drivers/protocol/file.ts", 'import { open } from "node:fs/promises";')],
  },
  {
    name: "src/ throws BlockError and asserts",
    check: tidy.checkThrows,
    broken: [source("src/block/a.ts", 'throw new Error("no");')],
    kept: [
      source("src/block/a.ts", 'throw new BlockError("EIO", "no");'),
      source("src/base/errors.ts", 'throw new Error("Invariant broken");'),
    ],
  },
  {
    name: "no test leaves the others out",
    check: tidy.checkTests,
    broken: [
      source("test/a.test.ts", 'it.only("works", () => {});'),
      source("test/a.test.ts", 'describe.concurrent.only("works", () => {});'),
    ],
    kept: [source("test/a.test.ts", 'it("says it.only", () => {});')],
  },
  {
    name: "what an error says is held to something",
    check: tidy.checkMatches,
    broken: [source("test/a.test.ts", "expect(error).toMatchObject({ message: /full/ });")],
    kept: [
      source("test/a.test.ts", "toMatchObject({ message: expect.stringMatching(/full/) });"),
      source("test/a.test.ts", "message: // the word"),
    ],
  },
  {
    name: "no helper asks for hooks when it is loaded",
    check: tidy.checkHelpers,
    broken: [
      source("test/block/rig.ts", "export const folder = testFolder();"),
      source("test/block/rig.ts", "let a = 1;\nafterAll(() => close(a));"),
    ],
    kept: [
      source("test/block/a.test.ts", "const folder = testFolder();"),
      source("test/block/rig.ts", "export function rig() {\n  afterAll(() => {});\n}"),
    ],
  },
];

describe.each(RULES)("$name", ({ check, broken, kept }) => {
  it("in the whole tree", () => {
    expect(CODE.flatMap((file) => check(file))).toEqual([]);
  });

  it.each(broken)("not in $text", (file) => {
    expect(check(file)).not.toEqual([]);
  });

  it.each(kept)("in $text", (file) => {
    expect(check(file)).toEqual([]);
  });
});

describe("what the browser loads", () => {
  it("never leads to code for Node", () => {
    expect(tidy.checkBundle(CODE)).toEqual([]);
  });

  it("is followed through other files", () => {
    const files = [
      source("src/engine/worker.ts", 'import { engine } from "./engine.ts";'),
      source("src/engine/engine.ts", 'import { all } from "../drivers/index.ts";'),
      source("src/drivers/index.ts", 'export { file } from "./protocol/file.ts";'),
      source("src/drivers/protocol/file.ts", ""),
    ];
    expect(tidy.checkBundle(files)).toHaveLength(1);
    expect(tidy.checkBundle(files.slice(1))).toEqual([]);
  });
});

describe("documents", () => {
  const documents = readdirSync(ROOT).filter((name) => name.endsWith(".md"));

  it.each(documents)("%s names only what is there", (name) => {
    const document = read(name);
    expect(tidy.checkDocument(document, (path) => existsSync(join(ROOT, path)))).toEqual([]);
  });

  it("a path that is not there is found", () => {
    const text = "See `src/nowhere/a.ts` and [this](NOWHERE.md), not [that](https://example.org/).";
    expect(tidy.checkDocument(source("README.md", text), () => false)).toHaveLength(2);
  });

  it("ARCHITECTURE.md draws the floors as they are", () => {
    expect(tidy.floorsInDocument(read("ARCHITECTURE.md").text)).toEqual(tidy.FLOORS);
  });
});

describe("blanking", () => {
  it("keeps code and lines, and hides comments and strings", () => {
    const text = 'a("x // y"); // z\n/* b\n*/ c(`d #{e("f")} g`); h = /"/; i("j");'.replace(
      "#",
      "$",
    );
    expect(tidy.withoutComments(text).replace(/ +/g, " ")).toBe(
      'a("x // y"); \n \n c(`d #{e("f")} g`); h = /"/; i("j");'.replace("#", "$"),
    );
    expect(tidy.withoutStrings(text).replace(/ +/g, " ")).toBe(
      'a(" "); \n \n c( e(" ") ); h = ; i(" ");',
    );
  });
});

function source(path: string, text: string): tidy.Source {
  return { path, text };
}

function read(path: string): tidy.Source {
  return { path, text: readFileSync(join(ROOT, path), "utf8") };
}

function sourcesIn(folder: string): tidy.Source[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => /\.(ts|tsx|mjs)$/.test(name) && !name.includes("node_modules"))
    .filter((name) => !(folder === "test" && name === "tidy.test.ts"))
    .map((name) => read(`${folder}/${name}`));
}
