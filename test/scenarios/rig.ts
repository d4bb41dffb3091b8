/**
 * The main job in one process: images that the real qemu-img made, a web server that can misbehave,
 * and the engine driven over QMP as a page drives it. Overlays are files, so that qemu-img can look.
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { seededRandom } from "../../src/base/random.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { browserDrivers } from "../../src/drivers/index.ts";
import { fileDriver } from "../../src/drivers/protocol/file.ts";
import type { Client, Device } from "../../src/engine/client.ts";
import { connectLocally, createNodeEngine } from "../../src/engine/node.ts";
import { type ImageServer, startImageServer } from "../conformance/protocol-http-server.ts";
import { runWell } from "../spawn.ts";

export interface Layer {
  /** Bytes of disk. */
  readonly size: number;
  /** `qemu-img create -o`: cluster_size=…, compat=…, extended_l2=on. */
  readonly options: string;
  /** qemu-io commands; "" for nothing. */
  readonly writes: readonly string[];
}

interface Template {
  readonly file: { readonly url: string };
}

export interface Rig {
  readonly folder: string;
  readonly client: Client;
  readonly server: ImageServer;
  qemuImg(...args: string[]): string;
  /** Makes a chain, base first, and serves it; returns blockdev-add options of the top. */
  chain(layers: readonly Layer[]): { readonly template: object; content(): Buffer };
  /** Makes `overlay.qcow2`, opens it over the template as node 'disk', and exports it as 'vda'. */
  openOverlay(template: object, options?: object): Promise<Device>;
  /** The same in a store that is a node already; 'template' and it stay after closeOverlay(). */
  openIn(store: string, template: object, options?: object): Promise<Device>;
  closeOverlay(): Promise<void>;
  /** The bytes of overlay.qcow2 as QEMU reads them, without its backing file if it has none. */
  overlayContent(): Buffer;
  end(): Promise<void>;
}

export async function makeRig(drivers: readonly BlockDriver[] = []): Promise<Rig> {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-scenario-"));
  const server = await startImageServer();
  const engine = await createNodeEngine({
    random: seededRandom(1),
    drivers: [...browserDrivers(new Map()), fileDriver() as BlockDriver, ...drivers],
  });
  const client = await connectLocally(engine);
  let device: Device | null = null;

  const qemuImg = (...args: string[]) => runWell("qemu-img", args, { cwd: folder });

  return {
    folder,
    client,
    server,
    qemuImg,

    chain(layers) {
      let template: object | null = null;
      let name = "";
      for (const [i, { size, options, writes }] of layers.entries()) {
        const backing: string[] = name ? ["-b", name, "-F", "qcow2"] : [];
        name = `layer${i}.qcow2`;
        qemuImg("create", "-q", "-f", "qcow2", ...backing, "-o", options, name, `${size}`);
        if (writes.length > 0) {
          const commands = writes.flatMap((write) => ["-c", write]);
          runWell("qemu-io", ["-f", "qcow2", ...commands, name], { cwd: folder });
        }
        const url = server.put(name, readFileSync(join(folder, name)));
        template = {
          driver: "qcow2",
          "read-only": true,
          file: { driver: "http", url, "retry-time": 0.3 },
          backing: template,
        };
      }
      const content = () => {
        qemuImg("convert", "-O", "raw", name, "content.raw");
        return readFileSync(join(folder, "content.raw"));
      };
      return { template: template!, content };
    },

    async openOverlay(template, options = {}) {
      const filename = join(folder, "overlay.qcow2");
      writeFileSync(filename, "");
      await client.execute("blockdev-add", {
        driver: "file",
        "node-name": "new",
        filename,
      } as never);
      await createOverlay(client, "new", template, options);
      await client.execute("blockdev-del", { "node-name": "new" });
      device = await openDisk(client, { driver: "file", filename });
      return device;
    },

    async openIn(store, template, options = {}) {
      await createOverlay(client, store, template, options);
      device = await openDisk(client, store);
      return device;
    },

    async closeOverlay() {
      await device?.close();
      device = null;
      await client.execute("block-export-del", { id: "vda" });
      await client.execute("blockdev-del", { "node-name": "disk" });
      const nodes = await client.execute("query-named-block-nodes");
      if (nodes.some((node) => node["node-name"] === "template")) {
        await client.execute("blockdev-del", { "node-name": "template" });
      }
    },

    overlayContent() {
      qemuImg("convert", "-f", "qcow2", "-O", "raw", "overlay.qcow2", "overlay.raw");
      return readFileSync(join(folder, "overlay.raw"));
    },

    async end() {
      await engine.close();
      await server.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Opens the template as node 'template', and makes an empty overlay over it in node `store`. */
async function createOverlay(
  client: Client,
  store: string,
  template: object,
  options: object,
): Promise<void> {
  await client.execute("blockdev-add", { "node-name": "template", ...template } as never);
  const nodes = await client.execute("query-named-block-nodes");
  const size = nodes.find((node) => node["node-name"] === "template")!.image["virtual-size"];
  const image = {
    driver: "qcow2",
    file: store,
    size,
    // A label to us; to qemu-img, which shares the folder, the file itself.
    "backing-file": basename((template as Template).file.url),
    "backing-fmt": "qcow2",
    ...options,
  };
  await client.execute("blockdev-create", { "job-id": "create0", options: image } as never);
  const { error } = await client.waitForJob("create0", "concluded");
  if (error) throw new Error(error);
  await client.execute("job-dismiss", { id: "create0" });
}

async function openDisk(client: Client, file: string | object): Promise<Device> {
  await client.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": "disk",
    file,
    backing: "template",
  } as never);
  await client.execute("block-export-add", {
    type: "message-port",
    id: "vda",
    "node-name": "disk",
    writable: true,
  });
  return client.openDevice("vda");
}
