/**
 * Chains of qcow2 in OPFS behind a real worker, a guest on the top, and qemu-img to judge the files
 * once the engine has let go of them.
 */

import { expect } from "vitest";
import { commands } from "vitest/browser";
import { seededRandom } from "../../../src/base/random.ts";
import {
  type Client,
  type CreateOptions,
  connect,
  type JobOutcome,
} from "../../../src/engine/client.ts";
import type { Verdict } from "./commands.ts";
import { Guest } from "./guest.ts";

const KiB = 1024;
export const MiB = 1024 * KiB;
export const DISK_BYTES = 8 * MiB;
/** A job at this speed is under way for about a second: long enough for guests to get in its way. */
export const SPEED = 8 * MiB;
const PREFIX = "jobs-test-";
const EXPORT = "guest";

type Qcow2Options = Extract<CreateOptions, { driver: "qcow2" }>;

export class Chain {
  readonly client: Client;
  readonly #random = seededRandom(7);
  #data = new Uint8Array(DISK_BYTES);

  static async start(): Promise<Chain> {
    return new Chain(await connect());
  }

  private constructor(client: Client) {
    this.client = client;
  }

  /**
   * Makes and opens images, the base first; each has some data and zeroes of its own.
   *
   * @returns a guest on the last one
   */
  async make(...names: readonly string[]): Promise<Guest> {
    let backing: string | undefined;
    for (const name of names) {
      await this.image(name, { backing });
      backing = name;
      const guest = await this.guest(name);
      await guest.rounds(8);
      if (name !== names.at(-1)) await this.removeGuest();
      else return guest;
    }
    throw new Error("A chain has at least one image");
  }

  /** An empty qcow2 of the disk's size, opened as a node of that name. */
  async image(
    name: string,
    { backing, ...options }: Partial<Qcow2Options> & { backing?: string | undefined } = {},
  ): Promise<void> {
    await this.createFile(name);
    await this.create({
      driver: "qcow2",
      file: `${name}-file`,
      size: DISK_BYTES,
      ...(backing !== undefined && {
        "backing-file": `${PREFIX}${backing}`,
        "backing-fmt": "qcow2",
      }),
      ...options,
    });
    await this.client.execute("blockdev-add", {
      driver: "qcow2",
      "node-name": name,
      file: `${name}-file`,
      backing: backing ?? null,
      discard: "unmap",
    });
  }

  /** An empty file in OPFS, opened as node "<name>-file". */
  async createFile(name: string): Promise<void> {
    const filename = PREFIX + name;
    await this.create({ driver: "opfs", filename, size: 0 });
    const options = { driver: "opfs", "node-name": `${name}-file`, filename } as const;
    await this.client.execute("blockdev-add", options);
  }

  /** blockdev-create, to its end. */
  async create(options: CreateOptions): Promise<void> {
    await this.client.execute("blockdev-create", { "job-id": "create", options });
    await this.ended("create");
  }

  /** Exports the node. The guest takes the disk for what the guest before it left behind. */
  async guest(node: string): Promise<Guest> {
    await this.client.execute("block-export-add", {
      type: "message-port",
      id: EXPORT,
      "node-name": node,
      writable: true,
    });
    const seed = this.#random.below(2 ** 32);
    return new Guest(await this.client.openDevice(EXPORT), this.#data, seed);
  }

  async removeGuest(): Promise<void> {
    await this.client.execute("block-export-del", { id: EXPORT, mode: "hard" });
  }

  /** Waits until the job has concluded well, and dismisses it. */
  async ended(id: string): Promise<JobOutcome> {
    const outcome = await this.client.waitForJob(id, "concluded");
    expect(outcome).toEqual({ status: "concluded" });
    await this.client.execute("job-dismiss", { id });
    return outcome;
  }

  /** The node that the guest's requests go to. */
  async guestNode(): Promise<string> {
    const exports = await this.client.execute("query-block-exports");
    return exports.find(({ id }) => id === EXPORT)!["node-name"];
  }

  /** The node's way down, without filters and stores: "top mid base". */
  async layers(node: string): Promise<string> {
    const nodes = await this.client.execute("query-named-block-nodes", { flat: true });
    const found: string[] = [];
    for (let name: string | undefined = node; name !== undefined; ) {
      found.push(name);
      const children = nodes.find((candidate) => candidate["node-name"] === name)?.children;
      name = children?.find(({ child }) => child === "backing")?.["node-name"];
    }
    return found.join(" ");
  }

  /** Ends the engine, which closes all images. */
  async close(): Promise<void> {
    await this.client.close();
  }

  /**
   * Has qemu-img check the images, and read the last one over those before it. Close first.
   *
   * @param expected what that must be
   */
  async judge(
    names: readonly string[],
    expected: Uint8Array<ArrayBuffer>,
    snapshots: Readonly<Record<string, Uint8Array<ArrayBuffer>>> = {},
  ): Promise<Verdict["info"]> {
    const reader = await connect();
    try {
      const chain: string[] = [];
      for (const name of names) chain.push(await dataUrl(await reader.getFile(PREFIX + name)));
      const states: Record<string, string> = {};
      for (const [tag, state] of Object.entries(snapshots)) {
        states[tag] = await dataUrl(new Blob([state]));
      }
      const { problems, info } = await commands.judgeImages({
        chain,
        expected: await dataUrl(new Blob([expected])),
        snapshots: states,
      });
      expect(problems).toEqual([]);
      return info;
    } finally {
      await reader.close();
    }
  }

  /** Ends the engine, whatever is under way in it, and removes the files. */
  async remove(): Promise<void> {
    await this.client.close();
    const cleaner = await connect();
    for (const { filename } of await cleaner.listFiles()) {
      if (filename.startsWith(PREFIX)) await cleaner.removeFile(filename);
    }
    await cleaner.close();
  }
}

function dataUrl(blob: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
