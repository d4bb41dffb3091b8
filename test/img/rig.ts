/** Our `img` and the real qemu-img, told the same. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { nodeHost } from "../../src/cli/img.ts";
import type { ImgHost } from "../../src/img/host.ts";
import { img } from "../../src/img/img.ts";
import { spawnQemuImg } from "../qemu-img.ts";
import { run } from "../spawn.ts";

export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

let known: ReturnType<typeof nodeHost> | undefined;

/** Loading the kernels takes longer than most commands. */
async function world(): Promise<ImgHost["world"]> {
  known ??= nodeHost();
  return (await known).world;
}

/** In this process. */
export async function ours(argv: readonly string[], own: Partial<ImgHost> = {}): Promise<Outcome> {
  let stdout = "";
  let stderr = "";
  const host = await nodeHost({
    world: await world(),
    print: async (text) => {
      stdout += text;
    },
    complain: async (text) => {
      stderr += text;
    },
    ...own,
  });
  const status = await img(argv, host);
  return { status, stdout, stderr };
}

export function theirs(argv: readonly string[]): Outcome {
  const { status, stdout, stderr } = spawnQemuImg(argv);
  return { status, stdout, stderr };
}

/** For making images and judging ours: it has to go well. */
export function qemuImg(...argv: string[]): string {
  const { status, stdout, stderr } = theirs(argv);
  expect(status, `qemu-img ${argv.join(" ")}: ${stderr}`).toBe(0);
  return stdout;
}

export function qemuIo(path: string, format: string, ...commands: string[]): void {
  const argv = ["-f", format, ...commands.flatMap((command) => ["-c", command]), path];
  const { status, stdout, stderr } = run("qemu-io", argv);
  expect(status, `qemu-io ${argv.join(" ")}: ${stdout}${stderr}`).toBe(0);
  expect(stdout + stderr).not.toMatch(/failed|error/i);
}

/**
 * Both are told the same, each in an own folder that stands for `@` in the words; what they print is
 * compared with the folders' names taken out.
 */
export interface Pair {
  readonly ours: Outcome;
  readonly theirs: Outcome;
}

export class Folders {
  readonly mine: string;
  readonly real: string;

  constructor(mine: string, real: string) {
    this.mine = mine;
    this.real = real;
  }

  /** @param words `@` stands for the folder */
  async both(...words: string[]): Promise<Pair> {
    const mine = await ours(words.map((word) => word.replaceAll("@", this.mine)));
    const real = theirs(words.map((word) => word.replaceAll("@", this.real)));
    return { ours: this.#neutral(mine), theirs: this.#neutral(real) };
  }

  /** Makes something with the real tool in both. */
  make(...words: string[]): void {
    for (const folder of [this.mine, this.real]) {
      qemuImg(...words.map((word) => word.replaceAll("@", folder)));
    }
  }

  #neutral({ status, stdout, stderr }: Outcome): Outcome {
    const neutral = (text: string) => text.replaceAll(this.mine, "@").replaceAll(this.real, "@");
    return { status, stdout: neutral(stdout), stderr: neutral(stderr) };
  }
}

/** Two folders for the tests of a file, empty, gone afterwards. */
export function useFolders(): () => Folders {
  let root: string;
  let count = 0;
  beforeAll(() => {
    root = mkdtempSync(join(tmpdir(), "blocktab-img-"));
  });
  afterAll(() => rmSync(root, { recursive: true, force: true }));
  return () => {
    count++;
    // Of one length: what they are written into has the same layout then.
    return new Folders(makeFolder(root, `m${count}`), makeFolder(root, `r${count}`));
  };
}

function makeFolder(root: string, name: string): string {
  return mkdtempSync(join(root, `${name}-`));
}

/** They say the same and end the same. @param asSaid what ours would be of a qemu-img this old */
export function expectSame(
  { ours: mine, theirs: real }: Pair,
  asSaid: (stdout: string) => string = (stdout) => stdout,
): void {
  expect({ status: mine.status, stdout: asSaid(mine.stdout) }, mine.stderr).toEqual({
    status: real.status,
    stdout: real.stdout,
  });
}

/** Both refuse. What qemu-img has said before it fails is said by us, too, or nothing. */
export function expectBothRefuse({ ours: mine, theirs: real }: Pair): void {
  expect(real.status, "the real tool refuses").toBe(1);
  expect(mine.status, `we refuse; said: ${mine.stdout}`).toBe(1);
  expect(mine.stderr).toMatch(/^blocktab img: .+\n$/s);
}
