/** `snapshot`: what it lists and changes is what qemu-img would. */

import { describe, expect, it } from "vitest";
import { expectBothRefuse, expectSame, ours, qemuImg, qemuIo, useFolders } from "./rig.ts";
import { makeSample } from "./samples.ts";
import { asOld } from "./versions.ts";

const folders = useFolders();
const old = (stdout: string) => asOld("snapshot", stdout);

describe("snapshot", () => {
  it.each(["empty", "with snapshots", "with a machine's state"])(
    "lists those of an image %s",
    async (name) => {
      const at = folders();
      makeSample(name, at);
      expectSame(await at.both("snapshot", "-l", "@/image"), old);
      expectSame(await at.both("snapshot", "-lU", "@/image"), old);
      // Newer ones list without being told, and take a format.
      const listed = await ours(["snapshot", "-l", `${at.mine}/image`]);
      expect(await ours(["snapshot", "-f", "qcow2", `${at.mine}/image`])).toEqual(listed);
    },
  );

  it("takes one, goes back to it and deletes it", async () => {
    const at = folders();
    at.make("create", "-q", "-f", "qcow2", "@/a", "1M");
    const write = (pattern: number) => {
      for (const folder of [at.mine, at.real]) {
        qemuIo(`${folder}/a`, "qcow2", `write -P ${pattern} 0 128k`);
      }
    };
    write(1);
    expectSame(await at.both("snapshot", "-c", "one", "@/a"));
    write(2);
    expectSame(await at.both("snapshot", "-qc", "two", "@/a"));
    expectSame(await at.both("snapshot", "-a", "1", "@/a"));
    qemuIo(`${at.mine}/a`, "qcow2", "read -P 1 0 128k");
    expectSame(await at.both("snapshot", "-a", "two", "@/a"));
    qemuIo(`${at.mine}/a`, "qcow2", "read -P 2 0 128k");
    expectSame(await at.both("snapshot", "-d", "one", "@/a"));
    const listed = await at.both("snapshot", "-l", "@/a");
    const undated = (stdout: string) => stdout.replace(/\d{4}-\S+ [\d:]+/g, "when");
    expect(undated(old(listed.ours.stdout))).toBe(undated(listed.theirs.stdout));
    const names = (folder: string) =>
      JSON.parse(qemuImg("info", "--output=json", `${folder}/a`)).snapshots.map(
        ({ id, name }: { id: string; name: string }) => [id, name],
      );
    expect(names(at.mine)).toEqual(names(at.real));
    expect(qemuImg("check", `${at.mine}/a`)).toContain("No errors");
  });

  it("works on a raw image as far as qemu-img does", async () => {
    const at = folders();
    at.make("create", "-q", "@/raw", "1M");
    expectSame(await at.both("snapshot", "-l", "@/raw"));
    expectBothRefuse(
      await at.both("snapshot", "--image-opts", "-c", "x", "driver=raw,file.filename=@/raw"),
    );
  });

  const REFUSED: readonly (readonly string[])[] = [
    [],
    ["-l", "-c", "x", "@/a"],
    ["-a", "x", "-d", "x", "@/a"],
    ["-d", "nope", "@/a"],
    ["-d", "1", "@/a"],
    ["-a", "nope", "@/a"],
    ["-Uc", "y", "@/a"],
    ["-c", "y", "@/nowhere"],
    ["-c", "y", "@/a", "@/a"],
  ];
  it.each(REFUSED.map((words) => [words.join(" "), words] as const))(
    "refuses '%s'",
    async (_, words) => {
      const at = folders();
      at.make("create", "-q", "-f", "qcow2", "@/a", "1M");
      at.make("snapshot", "-c", "x", "@/a");
      expectBothRefuse(await at.both("snapshot", ...words));
    },
  );

  it("does not take two of one name, which qemu-img does", async () => {
    const at = folders();
    at.make("create", "-q", "-f", "qcow2", "@/a", "1M");
    at.make("snapshot", "-c", "x", "@/a");
    expect(await ours(["snapshot", "-c", "x", `${at.mine}/a`])).toMatchObject({ status: 1 });
  });
});
