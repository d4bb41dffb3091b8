/** Chains that the real qemu-img made, resolved as `npm start -- image` does. */

import { execFileSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { drawChain, resolveTemplate } from "../../scripts/template.ts";

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "blocktab-template-"));
});

afterAll(() => {
  rmSync(folder, { recursive: true });
});

describe("resolveTemplate", () => {
  it("takes a file without a magic for a raw disk", async () => {
    const template = await resolveTemplate(rawDisk("plain.raw"));
    expect(template).toMatchObject({ name: "plain.raw", virtualSize: 1024 * 1024, demo: false });
    expect(template.chain).toEqual([{ path: at("plain.raw"), format: "raw" }]);
  });

  it("follows a chain to its base, each name relative to the image that holds it", async () => {
    mkdirSync(at("deep/er"), { recursive: true });
    rawDisk("deep/base.raw");
    create("deep/er/mid.qcow2", "-b", "../base.raw", "-F", "raw");
    create("deep/top.qcow2", "-b", "er/mid.qcow2", "-F", "qcow2", "-o", "cluster_size=4k");
    const template = await resolveTemplate(at("deep/top.qcow2"));
    expect(drawChain(template)).toBe("[base.raw] <── [mid.qcow2] <── [top.qcow2]");
    expect(template.chain.map(({ format }) => format)).toEqual(["qcow2", "qcow2", "raw"]);
    expect(template.virtualSize).toBe(1024 * 1024);
  });

  it("follows absolute names and those that begin with file:", async () => {
    rawDisk("f.raw");
    create("absolute.qcow2", "-b", at("f.raw"), "-F", "raw");
    create("file.qcow2", "-b", `file:${at("f.raw")}`, "-F", "raw");
    expect((await resolveTemplate(at("absolute.qcow2"))).chain).toHaveLength(2);
    expect((await resolveTemplate(at("file.qcow2"))).chain).toHaveLength(2);
  });

  it("believes the image above that its backing file is raw, whatever that looks like", async () => {
    create("inner.qcow2");
    create("nested.qcow2", "-b", "inner.qcow2", "-F", "raw");
    const { chain } = await resolveTemplate(at("nested.qcow2"));
    expect(chain.map(({ format }) => format)).toEqual(["qcow2", "raw"]);
  });

  it("finds the data file", async () => {
    create("external.qcow2", "-o", `data_file=external.data,data_file_raw=on`);
    const { chain } = await resolveTemplate(at("external.qcow2"));
    expect(chain).toEqual([
      { path: at("external.qcow2"), format: "qcow2", dataFile: at("external.data") },
    ]);
  });

  it("opens what a link of another folder leads to, names relative to the link", async () => {
    mkdirSync(at("links"), { recursive: true });
    rawDisk("links/base.raw");
    create("elsewhere.qcow2", "-u", "-b", "base.raw", "-F", "raw");
    symlinkSync(at("elsewhere.qcow2"), at("links/link.qcow2"));
    expect((await resolveTemplate(at("links/link.qcow2"))).chain[1]!.path).toBe(
      at("links/base.raw"),
    );
  });
});

describe("without a format in the image above", () => {
  it("a backing file without a magic is raw", async () => {
    rawDisk("old.raw");
    forgetFormat(create("over-raw.qcow2", "-u", "-b", "old.raw", "-F", "raw"));
    expect((await resolveTemplate(at("over-raw.qcow2"))).chain[1]!.format).toBe("raw");
  });

  it("a qcow2 that leads nowhere is qcow2", async () => {
    create("old.qcow2");
    forgetFormat(create("over-qcow2.qcow2", "-u", "-b", "old.qcow2", "-F", "qcow2"));
    expect((await resolveTemplate(at("over-qcow2.qcow2"))).chain[1]!.format).toBe("qcow2");
  });

  it("a qcow2 that leads on is refused, with what to do", async () => {
    rawDisk("secret.raw");
    create("guest-made.qcow2", "-b", at("secret.raw"), "-F", "raw");
    forgetFormat(create("over-guest.qcow2", "-u", "-b", "guest-made.qcow2", "-F", "qcow2"));
    await expect(resolveTemplate(at("over-guest.qcow2"))).rejects.toThrow(
      /does not say what format.*qemu-img rebase -u -F qcow2/,
    );
  });
});

describe("refuses, in one line that names the image", () => {
  const cases: [name: string, make: () => string, message: RegExp][] = [
    ["no such file", () => at("nowhere.qcow2"), /there is no file '.*nowhere\.qcow2'$/],
    ["a folder", () => folder, /is not a regular file/],
    ["an empty file", () => rawDisk("empty", 0), /'.*empty' is empty/],
    [
      "a missing backing file",
      () => create("orphan.qcow2", "-u", "-b", "gone.raw", "-F", "raw"),
      /there is no file '.*gone\.raw', which '.*orphan\.qcow2' names$/,
    ],
    [
      "a json: name",
      () => create("json.qcow2", "-u", "-b", 'json:{"driver":"null-co"}', "-F", "raw"),
      /names the backing file 'json:.*only names of files/,
    ],
    [
      "a name on the network",
      () => create("nbd.qcow2", "-u", "-b", "nbd://localhost/x", "-F", "raw"),
      /names the backing file 'nbd:/,
    ],
    [
      "a format that is neither raw nor qcow2",
      () => {
        rawDisk("x.vmdk");
        return create("over-vmdk.qcow2", "-u", "-b", "x.vmdk", "-F", "vmdk");
      },
      /is vmdk; only raw and qcow2/,
    ],
    [
      "a chain that bites its tail",
      () => {
        create("circle-a.qcow2", "-u", "-b", "circle-b.qcow2", "-F", "qcow2");
        create("circle-b.qcow2", "-u", "-b", "circle-a.qcow2", "-F", "qcow2");
        return at("circle-a.qcow2");
      },
      /goes in a circle/,
    ],
    [
      "an image that is its own backing file by another name",
      () => {
        create("self.qcow2", "-u", "-b", "self-link.qcow2", "-F", "qcow2");
        symlinkSync(at("self.qcow2"), at("self-link.qcow2"));
        return at("self.qcow2");
      },
      /goes in a circle/,
    ],
    [
      "a vmdk",
      () => {
        execFileSync("qemu-img", ["create", "-q", "-f", "vmdk", at("d.vmdk"), "1M"]);
        return at("d.vmdk");
      },
      /looks like VMDK.*qemu-img convert/,
    ],
    [
      "a qcow2 that is cut off in its header",
      () => {
        const path = create("cut.qcow2");
        truncateSync(path, 60);
        return path;
      },
      /cut\.qcow2' cannot be served: .*60 bytes/,
    ],
    [
      "a qcow2 that is cut off in its tables",
      () => {
        const path = create("short.qcow2");
        truncateSync(path, 1000);
        return path;
      },
      /short\.qcow2' is cut off: .* the file is 1000 bytes/,
    ],
    [
      "an encrypted qcow2",
      () => {
        // crypt_method 2, LUKS. Not by qemu-img: it measures the CPU first, and fails on a busy one.
        const path = create("luks.qcow2");
        const bytes = readFileSync(path);
        bytes.writeUInt32BE(2, 32);
        writeFileSync(path, bytes);
        return path;
      },
      /encrypted/,
    ],
  ];

  it.each(cases)("%s", async (_name, make, message) => {
    const error = await resolveTemplate(make()).then(
      () => null,
      (error) => error,
    );
    expect(error).toMatchObject({ name: "UserError", message: expect.stringMatching(message) });
    expect(error.message).not.toContain("\n");
  });
});

function at(name: string): string {
  return join(folder, name);
}

function rawDisk(name: string, bytes = 1024 * 1024): string {
  writeFileSync(at(name), Buffer.alloc(bytes, basename(name)));
  return at(name);
}

/** An image of 1 MiB, or as large as its backing file. */
function create(name: string, ...options: string[]): string {
  const backed = options.includes("-b") && !options.includes("-u");
  const size = backed ? [] : ["1M"];
  execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", ...options, at(name), ...size], {
    cwd: folder,
  });
  return at(name);
}

/** Takes the backing format out, as images of before qemu-img 6.1 often have none. */
function forgetFormat(path: string): void {
  const bytes = readFileSync(path);
  const type = bytes.indexOf(Buffer.from([0xe2, 0x79, 0x2a, 0xca]));
  expect(type).toBeGreaterThan(0);
  // A type that nobody knows is passed over.
  bytes.writeUInt32BE(0x01020304, type);
  writeFileSync(path, bytes);
}
