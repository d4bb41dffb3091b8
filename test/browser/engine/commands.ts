/**
 * The real qemu-img as a judge of images that a browser test has made: Vitest browser commands, which
 * run on Node.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BrowserCommand } from "vitest/node";
import { checkImage, runQemu } from "../../../scripts/qemu.ts";

export interface Case {
  /** qcow2 files as data URLs, the base first, each the backing file of the next. */
  readonly chain: readonly string[];
  /** What the chain must read as: a data URL of the raw disk. */
  readonly expected: string;
  /** What snapshots inside the last file must read as, by tag. */
  readonly snapshots?: Readonly<Record<string, string>>;
}

export interface Verdict {
  /** qemu-img's words for what is wrong; none if all is well. */
  readonly problems: readonly string[];
  /** `qemu-img info` of the last file. */
  readonly info: {
    readonly "virtual-size": number;
    readonly "backing-filename"?: string;
    readonly snapshots?: readonly { readonly name: string }[];
    readonly "format-specific": { readonly data: Readonly<Record<string, unknown>> };
  };
}

/** Checks each file for errors and leaks, and compares what they read as. */
export const judgeImages: BrowserCommand<[judged: Case]> = async (_context, judged) => {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-judge-"));
  try {
    return await judge(folder, judged);
  } finally {
    rmSync(folder, { recursive: true });
  }
};

async function judge(folder: string, { chain, expected, snapshots = {} }: Case): Promise<Verdict> {
  const put = (name: string, dataUrl: string) => {
    const path = join(folder, name);
    writeFileSync(path, Buffer.from(dataUrl.slice(dataUrl.indexOf(",") + 1), "base64"));
    return path;
  };
  const problems: string[] = [];
  const take = (problem: string | null) => void (problem !== null && problems.push(problem));
  const files = chain.map((dataUrl, n) => put(`${n}.qcow2`, dataUrl));
  for (const file of files) take(await checkImage(file));
  const top = files.at(-1)!;
  const options = [...files].reverse().map((file, n) => {
    const level = "backing.".repeat(n);
    return `${level}driver=qcow2,${level}file.driver=file,${level}file.filename=${file}`;
  });
  const bottom = `${"backing.".repeat(files.length)}`.slice(0, -1);
  const whole = `${options.join(",")},${bottom}=`;
  take(await differences(whole, put("expected.raw", expected)));
  for (const [tag, content] of Object.entries(snapshots)) {
    const out = join(folder, `snapshot-${tag}.raw`);
    const args = ["convert", "-U", "-l", `snapshot.name=${tag}`, "--image-opts", "-O", "raw"];
    const { status, output } = await runQemu("qemu-img", [...args, whole, out]);
    if (status !== 0) problems.push(output);
    else
      take(
        await differences(`driver=raw,file.driver=file,file.filename=${out}`, put(tag, content)),
      );
  }
  const { status, output } = await runQemu("qemu-img", ["info", "--output=json", top]);
  if (status !== 0) problems.push(output);
  return { problems, info: status === 0 ? JSON.parse(output) : null };
}

/** @param options of an image, for --image-opts. @param raw path of what it must equal */
async function differences(options: string, raw: string): Promise<string | null> {
  const expected = `driver=raw,file.driver=file,file.filename=${raw}`;
  const { status, output } = await runQemu("qemu-img", [
    "compare",
    "--image-opts",
    options,
    expected,
  ]);
  return status === 0 ? null : output;
}

declare module "vitest/browser" {
  interface BrowserCommands {
    judgeImages(judged: Case): Promise<Verdict>;
  }
}
