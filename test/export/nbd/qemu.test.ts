/**
 * Byte for byte against the real qemu-storage-daemon: raw clients tell both servers the same, right
 * and wrong, and what comes back must be equal but for the sentences of errors. Extended headers are
 * newer than the oldest daemon: they are compared where the environment names a second one.
 */

import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Command, CommandFlag, Info, Option } from "../../../src/export/nbd/protocol.ts";
import { bytes, RawClient, string, text, u16, u32, u64 } from "./raw-client.ts";
import { dial, hasQemu, must, ours, qemus, type Served, testFolder } from "./rig.ts";

const SECOND = process.env["QEMU_STORAGE_DAEMON_10"];
const folder = testFolder();
const SIZE = 8 * 1024 * 1024;
/** What both are told to export. */
async function exportAll(served: Served, file: string): Promise<void> {
  const qcow2 = {
    driver: "qcow2",
    "node-name": "disk",
    discard: "unmap",
    file: { driver: "file", filename: file, discard: "unmap" },
  };
  await served.execute("blockdev-add", qcow2);
  const add = (id: string, more: object) =>
    served.execute("block-export-add", { type: "nbd", id, "node-name": "disk", ...more });
  for (const name of ["b0", "b1"]) {
    await served.execute("block-dirty-bitmap-add", { node: "disk", name });
  }
  await served.execute("block-dirty-bitmap-disable", { node: "disk", name: "b1" });
  await add("w", {
    name: "w",
    writable: true,
    description: "the disk, to be written",
    bitmaps: ["b0", { node: "disk", name: "b1" }],
    "allocation-depth": true,
  });
  await add("r", { name: "", writable: false });
}

const daemons = [...(hasQemu ? ["qemu-storage-daemon"] : []), ...(SECOND ? [SECOND] : [])];

describe.skipIf(daemons.length === 0)("against the real qemu-storage-daemon", () => {
  let our: Served;
  const theirs: { readonly served: Served; readonly isNew: boolean }[] = [];

  beforeAll(async () => {
    const image = async (name: string) => {
      const file = join(folder, name);
      await must("qemu-img", "create", "-q", "-f", "qcow2", file, `${SIZE}`);
      await must("qemu-io", "-c", "write -P 5 64k 128k", "-c", "write -z 512k 64k", file);
      return file;
    };
    our = await ours(folder);
    await exportAll(our, await image("ours.qcow2"));
    for (const binary of daemons) {
      const served = await qemus(folder, {}, binary);
      await exportAll(served, await image(`theirs-${theirs.length}.qcow2`));
      theirs.push({ served, isNew: binary === SECOND });
    }
  });

  afterAll(async () => {
    await our?.close();
    for (const { served } of theirs) await served.close();
  });

  async function hear({ socket }: Served, script: (c: RawClient) => Promise<void>) {
    const client = new RawClient(await dial(socket));
    await client.until(() => script(client));
    client.channel.destroy();
    return client.transcript();
  }

  async function compare(script: (c: RawClient) => Promise<void>, onlyNew = false) {
    const heard = await hear(our, script);
    for (const { served, isNew } of theirs) {
      if (onlyNew && !isNew) continue;
      expect(heard).toBe(await hear(served, script));
    }
  }

  it("LIST, INFO and GO tell the same of exports", () =>
    compare(async (c) => {
      await c.greet();
      await c.option(Option.list);
      await c.info(Option.info, "w");
      await c.info(Option.info, "w", [Info.name, Info.blockSize, 77]);
      await c.info(Option.info, "", [Info.name]);
      await c.info(Option.info, "nobody");
      await c.option(Option.structuredReply);
      await c.info(Option.info, "w");
      await c.info(Option.go, "w");
    }));

  it.each([0, 1, 2, 3])("EXPORT_NAME works with client flags %i", (flags) =>
    compare(async (c) => {
      await c.greet(flags);
      await c.exportName("w", flags & 2 ? 10 : 134);
      await c.request({ type: Command.read, offset: 65536, bytes: 512 });
      await c.data(512);
      await c.request({ type: Command.flush });
    }),
  );

  it.each<[string, number, (c: RawClient) => Promise<void>]>([
    ["unknown client flags", 4, async () => {}],
    ["an old client that lists", 0, (c) => c.option(Option.list)],
    ["an export that is not there", 3, (c) => c.exportName("x", 10)],
    ["a wrong magic", 3, (c) => c.send(bytes(u64(1n), u32(3), u32(0)))],
    ["an option that is too long", 3, (c) => c.option(Option.list, bytes(), 0x2000001)],
    ["ABORT", 3, (c) => c.option(Option.abort)],
    ["ABORT with data", 3, (c) => c.option(Option.abort, text("x"))],
  ])("the handshake ends with %s", (_, flags, script) =>
    compare(async (c) => {
      await c.greet(flags);
      await script(c);
      await c.end();
    }),
  );

  it("options in the wrong are answered, and the next one is understood", () =>
    compare(async (c) => {
      const long = "n".repeat(4097);
      await c.greet();
      for (const option of [0, 4, 12, 99, 0xffffffff]) await c.option(option, text("data"));
      await c.option(Option.list, text("x"));
      await c.option(Option.startTls);
      await c.option(Option.startTls, text("x"));
      await c.option(Option.structuredReply, text("x"));
      await c.option(Option.setMetaContext, bytes(string("w"), u32(0)));
      await c.option(Option.structuredReply);
      await c.option(Option.structuredReply);
      for (const option of [Option.info, Option.go]) {
        await c.option(option);
        await c.option(option, bytes(u32(1)));
        await c.option(option, bytes(u32(5), text("abc")));
        await c.option(option, bytes(string("w")));
        await c.option(option, bytes(string("w"), u16(2), u16(0)));
        await c.option(option, bytes(string("w"), u16(0), text("x")));
        await c.option(option, bytes(string("w\0"), u16(0)));
        await c.option(option, bytes(string(long), u16(0)));
        await c.option(option, bytes(u32(0xffffffff), u16(0)));
        await c.info(option, "n".repeat(4096));
      }
      await c.info(Option.info, "w");
    }));

  it("contexts are listed and selected by the same queries", () =>
    compare(async (c) => {
      const queries = [
        [],
        ["base:"],
        ["base:allocation"],
        ["base:nothing"],
        ["qemu:"],
        ["qemu:allocation-depth"],
        ["qemu:dirty-bitmap:"],
        ["qemu:dirty-bitmap:b1"],
        ["qemu:dirty-bitmap:b"],
        ["qemu:dirty-bitmap:b1", "base:allocation", "qemu:dirty-bitmap:b0", "base:allocation"],
        ["", "x", "other:thing", "base", "Base:allocation"],
        ["q".repeat(4097), "base:allocation"],
      ];
      await c.greet();
      for (const query of queries) await c.contexts(Option.listMetaContext, "w", query);
      await c.option(Option.structuredReply);
      for (const option of [Option.listMetaContext, Option.setMetaContext]) {
        for (const query of queries) await c.contexts(option, "w", query);
        await c.contexts(option, "nobody", ["base:"]);
        await c.contexts(option, "", ["qemu:"]);
        await c.option(option);
        await c.option(option, bytes(string("w")));
        await c.option(option, bytes(string("w"), u32(2), string("base:")));
        await c.option(option, bytes(string("w"), u32(1), u32(8), text("base:")));
        await c.option(option, bytes(string("w"), u32(1), string("base:\0")));
        await c.option(option, bytes(string("w"), u32(0), text("left over")));
      }
    }));

  it("contexts that were selected for another export, or badly, are none", async () => {
    const status = { type: Command.blockStatus, bytes: 65536 };
    await compare(async (c) => {
      await c.greet();
      await c.option(Option.structuredReply);
      await c.contexts(Option.setMetaContext, "w", ["base:allocation"]);
      await c.go("");
      await c.request(status);
    });
    await compare(async (c) => {
      await c.greet();
      await c.option(Option.structuredReply);
      await c.contexts(Option.setMetaContext, "w", ["base:allocation"]);
      await c.contexts(Option.setMetaContext, "nobody", ["base:allocation"]);
      await c.go("w");
      await c.request(status);
    });
  });

  it.each(["simple", "structured", "extended"])("commands are answered the same, %s", (mode) =>
    compare(async (c) => {
      await transmission(c, mode, "w");
      const { read, write, flush, trim, cache, writeZeroes, blockStatus } = Command;
      const { fua, noHole, dontFragment, oneExtent, fastZero } = CommandFlag;
      const isSimple = mode === "simple";
      const take = async (offset: number, count: number, flags = 0) => {
        await c.request({ type: read, offset, bytes: count, flags });
        if (isSimple) await c.data(count);
      };
      await take(0, 256 * 1024);
      await take(65536 - 100, 1000);
      await take(SIZE - 512, 512, fua);
      if (!isSimple) await take(0, 256 * 1024, dontFragment);
      if (!isSimple) await take(0, 256 * 1024, dontFragment | fua);
      await c.request({ type: write, offset: 1 << 20, data: new Uint8Array(70000).fill(7) });
      await c.request({ type: write, offset: 100, data: new Uint8Array(1).fill(8), flags: fua });
      await take(0, 2 << 20);
      await c.request({ type: flush });
      await c.request({ type: flush, flags: fua });
      await c.request({ type: writeZeroes, offset: 1 << 20, bytes: 65536 });
      await c.request({ type: writeZeroes, offset: 64 << 10, bytes: 1000, flags: noHole | fua });
      // Where there is data: QEMU makes zero clusters of what is not allocated, too.
      await c.request({ type: writeZeroes, offset: 131072, bytes: 65536, flags: fastZero });
      // QEMU makes zero clusters where there is nothing to bring near; ours leaves them alone.
      await c.request({ type: cache, offset: 65536, bytes: 131072 });
      await c.request({ type: trim, offset: 1 << 20, bytes: 131072 });
      await c.request({ type: trim, offset: 3 << 20, bytes: 65536, flags: fua });
      await take(0, 4 << 20);
      await c.request({ type: blockStatus, offset: 0, bytes: SIZE });
      await c.request({ type: blockStatus, offset: 65536 - 512, bytes: 262144, flags: oneExtent });
      await c.request({ type: blockStatus, offset: 65536 + 7, bytes: 1000, flags: fua });
    }, mode === "extended"),
  );

  it.each(["simple", "structured", "extended"])("nothing at all may be asked for, %s", (mode) =>
    compare(async (c) => {
      await transmission(c, mode, "w");
      for (const type of [0, 1, 3, 4, 5, 6, 7]) {
        await c.request({ type, offset: 0, bytes: 0 });
        await c.request({ type, offset: SIZE, bytes: 0 });
      }
    }, mode === "extended"),
  );

  it.each(["simple", "structured", "extended"])("requests in the wrong are refused, %s", (mode) =>
    compare(async (c) => {
      await transmission(c, mode, "w");
      for (const type of [0, 3, 4, 5, 6, 7, 8, 0xffff]) {
        await c.request({ type, offset: SIZE, bytes: 1 });
        await c.request({ type, offset: SIZE - 1, bytes: 2 });
        await c.request({ type, offset: 1n << 40n, bytes: 1 });
        await c.request({ type, offset: (1n << 64n) - 1n, bytes: 1 });
        await c.request({ type, offset: (1n << 64n) - 1n, bytes: 0xffffffff });
        for (const flags of [1, 2, 4, 8, 16, 0x40, 0x8000]) {
          if (type === Command.read && flags === 1) continue;
          if (type === Command.read && flags === 4 && mode !== "simple") continue;
          await c.request({ type, offset: 0, bytes: 512, flags });
        }
      }
      await c.request({ type: Command.read, offset: 0, bytes: 0x2000001 });
      await c.request({ type: Command.cache, offset: 0, bytes: 0x2000001 });
      const data = new Uint8Array(512);
      for (const flags of [2, 4, 8, 16, 0x40]) {
        await c.request({ type: Command.write, data, flags });
      }
      await c.request({ type: Command.write, data, offset: SIZE });
      await c.request({ type: Command.write, data, offset: SIZE - 511 });
      // All of these have been taken in whole: the next one is understood.
      await c.request({ type: Command.flush });
    }, mode === "extended"),
  );

  it.each(["simple", "structured"])("a read-only export is not written, %s", (mode) =>
    compare(async (c) => {
      await transmission(c, mode, "");
      for (const flags of [0, 1]) {
        await c.request({ type: Command.write, data: new Uint8Array(512), flags });
        await c.request({ type: Command.writeZeroes, bytes: 512, flags });
        await c.request({ type: Command.trim, bytes: 512, flags });
      }
      await c.request({ type: Command.write, data: new Uint8Array(512), offset: SIZE });
      await c.request({ type: Command.cache, bytes: 512 });
      await c.request({ type: Command.flush });
    }),
  );

  it.each([
    ["a write that is too long", { type: Command.write, bytes: 0x2000001 }],
    ["a wrong magic", { type: Command.read, bytes: 512, magic: 0x25609514 }],
    ["the other kind of request", { type: Command.read, bytes: 512, magic: 0x21e41c71 }],
  ])("%s is answered, and then the line is cut", async (_, request) => {
    for (const mode of ["simple", "structured"]) {
      await compare(async (c) => {
        await transmission(c, mode, "w");
        await c.sendRequest(request);
        await c.answer();
        await c.end();
      });
    }
  });

  it("DISC ends the connection without an answer, whatever it carries", () =>
    compare(async (c) => {
      await transmission(c, "structured", "w");
      await c.sendRequest({ type: Command.disconnect, flags: 0xff, offset: 1n << 60n, bytes: 9 });
      await c.end();
    }));

  it("extended headers are negotiated alike", () =>
    compare(async (c) => {
      await c.greet();
      await c.option(Option.extendedHeaders, text("x"));
      await c.option(Option.extendedHeaders);
      await c.option(Option.extendedHeaders);
      await c.option(Option.structuredReply);
      await c.info(Option.info, "w");
      await c.contexts(Option.setMetaContext, "w", ["base:allocation"]);
      await c.info(Option.info, "w");
      await c.exportName("w", 10);
    }, true));

  it("payloads are taken in with extended headers", () =>
    compare(async (c) => {
      await transmission(c, "extended", "w");
      const { payload } = CommandFlag;
      const data = new Uint8Array(512).fill(3);
      await c.request({ type: Command.write, data, flags: payload });
      for (const type of [0, 3, 4, 5, 6, 8]) await c.request({ type, data, flags: payload });
      const select = (...ids: number[]) => bytes(u64(262144n), ...ids.map(u32));
      const good = [select(0), select(1, 0), select(2, 3), select(3)];
      const bad = [select(), select(4), select(0, 0), select(0, 9), select(0).subarray(0, 7)];
      const lengths = [select(0).subarray(0, 10), select(0, 1, 2, 3, 4), bytes(u64(0n), u32(0))];
      for (const data of [...good, ...bad, ...lengths, bytes(u64(1n << 50n), u32(0))]) {
        await c.request({ type: Command.blockStatus, data, flags: payload });
      }
      await c.sendRequest({ type: Command.read, bytes: 0x2000001, flags: payload });
      await c.answer();
      await c.end();
    }, true));
});

/** @param mode "simple", "structured" or "extended": with all of the export's contexts */
async function transmission(c: RawClient, mode: string, name: string): Promise<void> {
  await c.greet();
  if (mode === "structured") await c.option(Option.structuredReply);
  if (mode === "extended") {
    await c.option(Option.extendedHeaders);
    c.isExtended = true;
  }
  if (mode !== "simple") {
    const all = ["base:allocation", "qemu:allocation-depth"];
    const bitmaps = ["qemu:dirty-bitmap:b0", "qemu:dirty-bitmap:b1"];
    await c.contexts(Option.setMetaContext, name, [...all, ...bitmaps]);
  }
  await c.go(name);
}
