/**
 * The export type that a page opens: the data port of an engine's client finds it by its id
 * (src/engine/data-port.ts). To the graph, and so to query-block and block-stream, it is a device.
 * QEMU has no such type.
 */

import type { BlockExportDriver } from "./driver.ts";

export const messagePort: BlockExportDriver = {
  type: "message-port",
  options: {},
  isDevice: true,
  open: () => ({}),
};
