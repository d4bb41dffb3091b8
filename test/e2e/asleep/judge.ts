/** The disk and its file at the end, as the real qemu-img has them; an owner that was frozen may leave leaks. */

import { writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { expect } from "vitest";
import { compareImages, diskSha256 } from "../../../scripts/qemu.ts";
import { qemuCheck } from "../../drivers/format/rig.ts";
import type { User } from "../user.ts";

const LEAKS = 3;

/** Of a disk that is whole; it is closed afterwards. */
export async function judge(user: User): Promise<void> {
  const { driver, file } = user;
  const expected = await user.expectedDisk();
  expect((await driver.verify()).sha256).toBe(await diskSha256(expected));
  // A browser whose tabs are left as they are tells of no downloads.
  const base64 = await driver.page.evaluate(async () => {
    const { client, domains } = window.blocktab!;
    await domains.domain("page").destroy();
    const reader = new FileReader();
    reader.readAsDataURL(await client.getFile("disk.qcow2"));
    await new Promise((resolve) => reader.addEventListener("load", resolve));
    return (reader.result as string).replace(/^.*,/, "");
  });
  writeFileSync(file, Buffer.from(base64, "base64"));
  const { status, text } = qemuCheck(dirname(file), "downloaded.qcow2");
  expect([0, LEAKS], text).toContain(status);
  expect(await compareImages(file, expected)).toBeNull();
}
