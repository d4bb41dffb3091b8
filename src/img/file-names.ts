/**
 * Sentences of the block layer name nodes; whoever runs `img` knows files:
 *
 *     Node '#block3' has no bitmap 'a'            'disk.qcow2' has no bitmap 'a'
 *     The image of node '#block3' is corrupt      The image 'disk.qcow2' is corrupt
 */

import type { BlockNode } from "../block/node.ts";

/** @param find a node that is open, by its name; of others there is no more than "the image" to say */
export function withFileNames(text: string, find: (node: string) => BlockNode | undefined): string {
  return text.replace(
    /(image of )?\b([Nn])ode '(#block\d+)'/g,
    (_, image: string | undefined, n: string, name: string) => {
      const node = find(name);
      const file = node && fileNameOf(node);
      if (file !== undefined) return image ? `image '${file}'` : `'${file}'`;
      return image ? "image" : `${n === "N" ? "The" : "the"} image`;
    },
  );
}

function fileNameOf(node: BlockNode): string | undefined {
  const { filename } = node.state.info?.() ?? {};
  if (filename !== undefined) return filename;
  const below = node.children.get("file");
  return below && fileNameOf(below.node);
}
