import { describe, expect, it } from "vitest";
import { BlockError } from "../../../src/base/errors.ts";
import { storeError } from "../../../src/drivers/protocol/errors.ts";

describe("storeError", () => {
  it("has an errno for what browsers and Node throw", () => {
    const names = {
      NotAllowedError: "EACCES",
      SecurityError: "EACCES",
      NoModificationAllowedError: "EBUSY",
      TypeMismatchError: "EINVAL",
      NotFoundError: "ENOENT",
      QuotaExceededError: "ENOSPC",
      NotSupportedError: "ENOTSUP",
      NotReadableError: "ESTALE",
      TimeoutError: "ETIMEDOUT",
      InvalidStateError: "EIO",
      AbortError: "EIO",
      constructor: "EIO",
    };
    for (const [name, errno] of Object.entries(names)) {
      expect(storeError(new DOMException("why", name), "Trying").errno, name).toBe(errno);
    }
    const codes = {
      EACCES: "EACCES",
      ENOENT: "ENOENT",
      ENOSPC: "ENOSPC",
      EDQUOT: "ENOSPC",
      EISDIR: "EINVAL",
      EROFS: "EROFS",
      EMFILE: "EIO",
    };
    for (const [code, errno] of Object.entries(codes)) {
      const error = Object.assign(new Error(`${code}: why`), { code, syscall: "open" });
      expect(storeError(error, "Trying").errno, code).toBe(errno);
    }
    const firefox = { name: "NS_ERROR_FILE_NO_DEVICE_SPACE", message: "" };
    expect(storeError(firefox, "Trying").errno).toBe("ENOSPC");
    expect(storeError({ name: "NS_ERROR_FAILURE", message: "" }, "Trying").errno).toBe("EIO");
  });

  it("tells what was tried and why it failed, and keeps the cause", () => {
    const cause = new DOMException("no room", "QuotaExceededError");
    const error = storeError(cause, "Writing 5 bytes at 0 of 'a'");
    expect(error.message).toBe("Writing 5 bytes at 0 of 'a' failed: no room");
    expect(error.cause).toBe(cause);
    expect(storeError(new DOMException("", "UnknownError"), "Trying").message).toBe(
      "Trying failed: UnknownError",
    );
  });

  it("says nothing of the names that a system's call was given", () => {
    const file = { code: "ENOENT", syscall: "open", name: "Error" };
    const opening = { ...file, message: "ENOENT: no such file or directory, open 'a b'" };
    expect(storeError(opening, "Trying").message).toBe("Trying failed: no such file or directory");
    const socket = {
      code: "EROFS",
      syscall: "listen",
      address: "/proc/self/fd/18/.a b",
      name: "Error",
    };
    const message = `listen EROFS: read-only file system ${socket.address}`;
    expect(storeError({ ...socket, message }, "Trying").message).toBe(
      "Trying failed: read-only file system",
    );
  });

  it("lets a BlockError be what it is", () => {
    const error = new BlockError("EBUSY", "In use");
    expect(storeError(error, "Trying")).toBe(error);
  });

  it("never dresses up a bug as the world's fault", () => {
    for (const bug of [new TypeError("x is undefined"), new Error("Invariant broken")]) {
      expect(() => storeError(bug, "Trying")).toThrow(bug);
    }
  });
});
