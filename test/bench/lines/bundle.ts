/** What a visitor loads before the page can do anything, next to what is not ours in it. */

import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import sirv from "sirv";
import { build } from "vite";
import { ensurePage } from "../../../scripts/page.ts";
import { ROOT } from "../../../scripts/setup.mjs";
import type { Lab } from "../lab.ts";
import type { Line } from "../line.ts";

export const BUNDLE_LINES: readonly Line[] = [
  {
    name: "bundle-size",
    unit: "KiB",
    reference:
      "all that the page loads until its engine runs (HTML, CSS, scripts, worker, wasm), gzip -9 " +
      "each; to the libraries in it alone, bundled together from the same imports, gzip -9",
    aim: null,
    runs: 1,
    async prepare(lab) {
      return {
        warmUp: false,
        ours: () => loadedBytes(lab),
        theirs: librariesBytes,
      };
    },
  },
];

/** @returns KiB */
async function loadedBytes(lab: Lab): Promise<number> {
  const folder = await ensurePage();
  const paths = new Set<string>();
  const files = sirv(folder, { dev: true });
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? "/", "http://localhost").pathname;
    // The service worker would fetch everything, also what is only needed later.
    if (path === "/sw.js" || path === "/template.json") {
      response.writeHead(404).end();
      return;
    }
    paths.add(path === "/" ? "/index.html" : path);
    files(request, response, () => void response.writeHead(404).end());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const page = await (await lab.chromium()).newPage();
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  await page.waitForFunction(() => "blocktab" in window);
  await page.close();
  server.closeAllConnections();
  server.close();
  if (![...paths].some((path) => path.endsWith(".wasm"))) {
    throw new Error(`The page loaded no wasm, only ${[...paths].join(", ")}`);
  }
  return sum([...paths].map((path) => gzipBytes(readFileSync(join(folder, path))))) / 1024;
}

/** @returns KiB */
async function librariesBytes(): Promise<number> {
  const entry = [...libraryImports()].map(
    ([library, names], i) =>
      `export { ${[...names].map((name) => `${name} as ${name}_${i}`).join(", ")} } from "${library}";`,
  );
  const virtual = "virtual:libraries";
  const output = await build({
    configFile: false,
    root: ROOT,
    logLevel: "warn",
    plugins: [
      {
        name: "libraries",
        resolveId: (id) => (id === virtual ? id : null),
        load: (id) => (id === virtual ? entry.join("\n") : null),
      },
    ],
    build: {
      write: false,
      target: "es2022",
      rollupOptions: { input: virtual, preserveEntrySignatures: "strict" },
    },
  });
  const chunks = [output].flat().flatMap((one) => ("output" in one ? one.output : []));
  const codes = chunks.map((chunk) => (chunk.type === "chunk" ? chunk.code : ""));
  return sum(codes.map((code) => gzipBytes(Buffer.from(code)))) / 1024;
}

/** The values that web/ and src/ import from packages at start, by package. */
function libraryImports(): Map<string, Set<string>> {
  // What .tsx files are compiled to.
  const found = new Map([["preact/jsx-runtime", new Set(["jsx", "jsxs", "Fragment"])]]);
  for (const folder of ["web", "src"]) {
    for (const path of readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })) {
      if (!/\.tsx?$/.test(path) || path.includes("node_modules")) continue;
      const text = readFileSync(join(ROOT, folder, path), "utf8");
      for (const [, what, library] of text.matchAll(/^import ([^;]*?) from "([^".][^"]*)";/gm)) {
        if (library!.startsWith("node:") || what!.startsWith("type ")) continue;
        const names = found.get(library!) ?? new Set();
        for (const name of importedNames(what!, text)) names.add(name);
        found.set(library!, names);
      }
    }
  }
  return found;
}

/** @param what "{ a, type B, c as d }" or "* as v", of which the used members count */
function importedNames(what: string, text: string): string[] {
  const all = /^\* as (\w+)$/.exec(what)?.[1];
  if (all !== undefined) {
    // Types have capitals, values do not.
    return [...text.matchAll(new RegExp(`\\b${all}\\.([a-z]\\w*)`, "g"))].map(([, name]) => name!);
  }
  const list = /\{([^}]*)\}/.exec(what)?.[1] ?? "";
  const names = list.split(",").map((item) => item.trim().replace(/ as .*$/, ""));
  return names.filter((name) => name !== "" && !name.startsWith("type "));
}

function gzipBytes(bytes: Buffer): number {
  return gzipSync(bytes, { level: 9 }).length;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
