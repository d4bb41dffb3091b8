/**
 * Answers of sync access handles that were seen in browsers, but that no browser here gives when it
 * is asked to. All else about OPFS is tested on the real thing: test/browser/protocol/opfs.test.ts.
 */

import { describe, expect, it } from "vitest";
import { BlockError } from "../../../src/base/errors.ts";
import { OpfsImage, OpfsState, type SyncAccessHandle } from "../../../src/drivers/protocol/opfs.ts";
import { failure, noise } from "../../conformance/protocol.ts";

describe("OpfsState", () => {
  it.each<[string, number[], string]>([
    ["Firefox at its quota: nothing written", [0], "ENOSPC"],
    ["Firefox at its quota, half way", [600, 0], "ENOSPC"],
    ["Chromium off the record, full: -8 as unsigned", [2 ** 32 - 8], "ENOSPC"],
    ["any other code cast to unsigned", [2 ** 32 - 1], "EIO"],
    ["more than there was to write", [1001], "EIO"],
    ["a negative number", [-1], "EIO"],
  ])("fails a write for %s", async (_, answers, errno) => {
    const state = stateOn({ write: () => answers.shift()!, getSize: () => 77 });
    await failure(state.pwrite(new Uint8Array(1000), 0), errno);
    // Asked for again: who knows what it has done.
    expect(state.getLength()).toBe(77);
  });

  it("goes on with the rest of a short write, and of a short read", async () => {
    const calls: unknown[] = [];
    const some = (buf: Uint8Array, { at }: { at: number }) => {
      calls.push([at, buf.length]);
      return Math.min(400, buf.length);
    };
    const state = stateOn({ write: some, read: some });
    await state.pwrite(noise(1000), 50);
    expect(calls.splice(0)).toEqual([
      [50, 1000],
      [450, 600],
      [850, 200],
    ]);
    expect(state.getLength()).toBe(1050);
    await state.pread(new Uint8Array(500), 0);
    expect(calls).toEqual([
      [0, 500],
      [400, 100],
    ]);
  });

  it.each([0, 2 ** 32 - 5, 1001])("fails a read that is answered with %i", async (answer) => {
    const state = stateOn({ read: () => answer }, true);
    await failure(state.pread(new Uint8Array(1000), 0), "EIO");
  });

  it("fails a truncate that has no effect", async () => {
    const state = stateOn({ getSize: () => 5000 });
    await failure(state.truncate(9000), "ENOSPC");
    await failure(state.truncate(1000), "EIO");
    expect(state.getLength()).toBe(5000);
  });

  it("fails a truncate with the exception of Firefox", async () => {
    const truncate = () => {
      throw { name: "NS_ERROR_FILE_NO_DEVICE_SPACE", message: "" };
    };
    await failure(stateOn({ truncate }).truncate(9000), "ENOSPC");
  });

  it("fails every flush of an image after one that has failed, but not of what is written again", async () => {
    let isFull = true;
    const answers = {
      flush() {
        if (isFull) throw new DOMException("no room", "QuotaExceededError");
      },
    };
    const image = new OpfsImage(handle(answers), "f", false, () => {
      throw new Error("not opened again");
    });
    const record = stateOn(answers);
    await failure(image.flush(), "ENOSPC");
    await failure(record.flush(), "ENOSPC");
    isFull = false;
    await failure(image.flush(), "ENOSPC");
    await failure(image.reopen(true), "ENOSPC");
    await record.flush();
  });

  it("keeps its handle over a reopen where there is one kind of handle only", async () => {
    const closed: string[] = [];
    const state = stateOn({ close: () => closed.push("old") });
    await state.reopen(true);
    await state.reopen(false);
    await state.pwrite(noise(10), 0);
    expect(closed).toEqual([]);
  });

  it("has its old handle again when it does not get another kind", async () => {
    const wanted: boolean[] = [];
    const first = handle({ mode: "readwrite" });
    const state = new OpfsState(first, "f", false, async (readOnly) => {
      wanted.push(readOnly);
      if (readOnly) throw new BlockError("EBUSY", "Somebody has it");
      return handle({ mode: "readwrite", getSize: () => 0 });
    });
    await failure(state.reopen(true), "EBUSY");
    expect(wanted).toEqual([true, false]);
    await state.pwrite(noise(10), 0);
  });

  it("is lost, and says so, when somebody took or changed the file in between", async () => {
    const taken = new OpfsState(handle({ mode: "readwrite" }), "f", false, async () => {
      throw new BlockError("EBUSY", "Somebody has it");
    });
    await failure(taken.reopen(true), "EBUSY");
    await failure(taken.pread(new Uint8Array(1), 0), "ESTALE");
    await taken.close();

    const longer = async () => handle({ mode: "read-only", getSize: () => 512 });
    const changed = new OpfsState(handle({ mode: "readwrite" }), "f", false, longer);
    await failure(changed.reopen(true), "ESTALE");
    await failure(changed.pwrite(new Uint8Array(1), 0), "ESTALE");
  });
});

function stateOn(answers: Partial<SyncAccessHandle>, readOnly = false): OpfsState {
  return new OpfsState(handle(answers), "f", readOnly, () => {
    throw new Error("the handle is kept");
  });
}

function handle(answers: Partial<SyncAccessHandle>): SyncAccessHandle {
  return {
    read: (buf) => buf.length,
    write: (buf) => buf.length,
    truncate() {},
    getSize: () => 0,
    flush() {},
    close() {},
    ...answers,
  };
}
