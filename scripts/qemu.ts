/** The real qemu-img and qemu-io, as judges of what blocktab wrote. */

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { UserError } from "./setup.mjs";

export interface ToolResult {
  readonly status: number;
  /** What it printed, on both outputs, without the space around it. */
  readonly output: string;
}

/** What the page wrote to its disk. */
export interface GuestWrite {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Runs a tool to its end, whatever its exit status. @throws UserError if it cannot be run at all */
export function runQemu(tool: "qemu-img" | "qemu-io", args: string[]): Promise<ToolResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(tool, args, { stdio: ["ignore", "pipe", "pipe"] });
    const said: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => said.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => said.push(chunk));
    child.on("error", (error) => reject(new UserError(`cannot run ${tool}: ${error.message}`)));
    child.on("close", (status, signal) => {
      const output = Buffer.concat(said).toString().trim();
      resolve({ status: status ?? 1, output: signal === null ? output : `${output} (${signal})` });
    });
  });
}

/** @throws UserError with what the tool said if it fails */
async function mustRun(tool: "qemu-img" | "qemu-io", args: string[]): Promise<void> {
  const { status, output } = await runQemu(tool, args);
  if (status !== 0) throw new UserError(`${tool} ${args[0]} failed (status ${status}): ${output}`);
}

/**
 * Makes the disk that the page's must equal: an overlay of QEMU's own over the template, with the
 * same writes done by qemu-io.
 *
 * @param path of the new overlay
 */
export async function makeExpected(
  path: string,
  template: { readonly path: string; readonly format: string },
  writes: readonly GuestWrite[],
): Promise<void> {
  const backing = ["-b", template.path, "-F", template.format];
  await mustRun("qemu-img", ["create", "-q", "-f", "qcow2", ...backing, path]);
  for (const { offset, bytes } of writes) {
    const pattern = `${path}.pattern`;
    writeFileSync(pattern, bytes);
    const command = `write -q -s ${pattern} ${offset} ${bytes.length}`;
    await mustRun("qemu-io", ["-f", "qcow2", "-c", command, path]);
    await rm(pattern);
  }
}

/** SHA-256 of a qcow2's whole guest disk, as QEMU reads it. Makes and removes a sparse raw copy. */
export async function diskSha256(path: string): Promise<string> {
  const raw = `${path}.raw`;
  try {
    await mustRun("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", path, raw]);
    const hash = createHash("sha256");
    for await (const chunk of createReadStream(raw, { highWaterMark: 1024 * 1024 })) {
      hash.update(chunk as Buffer);
    }
    return hash.digest("hex");
  } finally {
    await rm(raw, { force: true });
  }
}

/**
 * Problems that `qemu-img check` finds in a qcow2, leaks included; null if it is clean. Its backing
 * file is left out: that is a URL, for which QEMU would need a package that few have.
 */
export async function checkImage(path: string): Promise<string | null> {
  const options = `driver=qcow2,backing=,file.driver=file,file.filename=${path.replaceAll(",", ",,")}`;
  const { status, output } = await runQemu("qemu-img", ["check", "--image-opts", options]);
  return status === 0 ? null : output;
}

/** Where two qcow2 differ, in qemu-img's words; null if they read the same. */
export async function compareImages(one: string, other: string): Promise<string | null> {
  const args = ["compare", "-f", "qcow2", "-F", "qcow2", one, other];
  const { status, output } = await runQemu("qemu-img", args);
  return status === 0 ? null : output;
}
