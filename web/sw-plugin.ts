/**
 * Puts the service worker into the build, with the list of the build's files in it.
 *
 * The file keeps its name, sw.js, next to index.html: browsers look for a new one by that name, and
 * its folder is what it may serve.
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Plugin } from "vite";

export function serviceWorker(): Plugin {
  return {
    name: "blocktab-service-worker",
    apply: "build",
    enforce: "post",
    generateBundle: {
      order: "post",
      handler(_options, bundle) {
        const hash = createHash("sha256");
        const files = Object.keys(bundle).sort();
        for (const file of files) {
          const item = bundle[file]!;
          hash.update(file).update(item.type === "chunk" ? item.code : item.source);
        }
        const source = readFileSync(new URL("./sw.js", import.meta.url), "utf8");
        hash.update(source);
        // The page itself is kept under its folder's URL.
        const kept = files.filter((file) => file !== "index.html" && !file.endsWith(".map"));
        this.emitFile({
          type: "asset",
          fileName: "sw.js",
          source: source
            .replace('["__FILES__"]', JSON.stringify(kept))
            .replace("__HASH__", hash.digest("hex").slice(0, 16)),
        });
      },
    },
  };
}
