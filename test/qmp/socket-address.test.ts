/** Addresses of sockets, as clients write them. */

import { expect, it } from "vitest";
import { toAddress } from "../../src/qmp/socket-address.ts";

const inet = (data: object) => toAddress({ type: "inet", data: { host: "", port: "1", ...data } });

it.each(["", "127.0.0.1", "::1", "fe80::1%eth0"])("takes '%s' for a number", (host) => {
  expect(inet({ host, numeric: true })).toMatchObject({ host });
});

it("does not look up a name where only a number will do", () => {
  expect(() => inet({ host: "localhost", numeric: true })).toThrow("'localhost' is a name");
  expect(inet({ host: "localhost", numeric: false })).toMatchObject({ host: "localhost" });
});

it.each(["", "x", "65536", "-1"])("refuses port '%s'", (port) => {
  expect(() => inet({ port })).toThrow(`'${port}' is no port`);
});

it("refuses a path that would be cut off", () => {
  const unix = (path: string) => toAddress({ type: "unix", data: { path } });
  expect(unix("a".repeat(107))).toMatchObject({ type: "unix" });
  expect(() => unix("a".repeat(108))).toThrow("is too long: 108 bytes");
  expect(() => unix("ä".repeat(54))).toThrow("is too long: 108 bytes");
});
