/** Throttle groups and the nodes that use them, as a client types it. */

import { expect, it } from "vitest";
import { throttle } from "../../src/drivers/filter/throttle.ts";
import { conversation } from "./conversation.ts";

it("makes, tells, changes and removes throttle groups", async () => {
  const qmp = await (await conversation([throttle])).negotiated();
  const limits = { "bps-total": 1000, "bps-total-max": 4000 };
  await qmp.execute("object-add", { "qom-type": "throttle-group", id: "t0", limits });
  await qmp.execute("object-add", { "qom-type": "throttle-group", id: "t0" });
  await qmp.execute("qom-get", { path: "/objects/t0", property: "limits" });
  const set = (value: object) => qmp.execute("qom-set", { path: "t0", property: "limits", value });
  await set({ "iops-size": 4096 });
  await set({ "bps-total-max": 10 });
  await set({ "bps-total": 2000 });
  await qmp.execute("qom-get", { path: "t0", property: "nope" });
  await qmp.execute("qom-get", { path: "nope", property: "limits" });
  await qmp.execute("object-del", { id: "t0" });
  await qmp.execute("object-del", { id: "t0" });
  expect(qmp.transcript()).toMatchInlineSnapshot(`
    "
    -> {"execute":"object-add","arguments":{"qom-type":"throttle-group","id":"t0","limits":{"bps-total":1000,"bps-total-max":4000}}}
    <- {"return":{}}
    -> {"execute":"object-add","arguments":{"qom-type":"throttle-group","id":"t0"}}
    <- {"error":{"class":"GenericError","desc":"There is an object 't0' already"}}
    -> {"execute":"qom-get","arguments":{"path":"/objects/t0","property":"limits"}}
    <- {"return":{"iops-total":0,"iops-total-max":0,"iops-total-max-length":1,"iops-read":0,"iops-read-max":0,"iops-read-max-length":1,"iops-write":0,"iops-write-max":0,"iops-write-max-length":1,"bps-total":1000,"bps-total-max":4000,"bps-total-max-length":1,"bps-read":0,"bps-read-max":0,"bps-read-max-length":1,"bps-write":0,"bps-write-max":0,"bps-write-max-length":1,"iops-size":0}}
    -> {"execute":"qom-set","arguments":{"path":"t0","property":"limits","value":{"iops-size":4096}}}
    <- {"error":{"class":"GenericError","desc":"These throttle limits cannot be: 'iops-size' needs an iops limit"}}
    -> {"execute":"qom-set","arguments":{"path":"t0","property":"limits","value":{"bps-total-max":10}}}
    <- {"error":{"class":"GenericError","desc":"These throttle limits cannot be: 'bps-total-max' cannot be lower than 'bps-total'"}}
    -> {"execute":"qom-set","arguments":{"path":"t0","property":"limits","value":{"bps-total":2000}}}
    <- {"return":{}}
    -> {"execute":"qom-get","arguments":{"path":"t0","property":"nope"}}
    <- {"error":{"class":"GenericError","desc":"Object 't0' has no property 'nope'"}}
    -> {"execute":"qom-get","arguments":{"path":"nope","property":"limits"}}
    <- {"error":{"class":"DeviceNotFound","desc":"There is no object 'nope'"}}
    -> {"execute":"object-del","arguments":{"id":"t0"}}
    <- {"return":{}}
    -> {"execute":"object-del","arguments":{"id":"t0"}}
    <- {"error":{"class":"GenericError","desc":"There is no object 't0'"}}
    "
  `);
});

it("keeps a group that a node is in", async () => {
  const qmp = await (await conversation([throttle])).negotiated();
  const file = { driver: "memory", size: 512 };
  const add = (group: string) =>
    qmp.execute("blockdev-add", {
      ...{ driver: "throttle", "node-name": "th", "throttle-group": group, file },
    });
  await add("t0");
  await qmp.execute("object-add", { "qom-type": "throttle-group", id: "t0" });
  await add("t0");
  await qmp.execute("object-del", { id: "t0" });
  await qmp.execute("blockdev-del", { "node-name": "th" });
  await qmp.execute("object-del", { id: "t0" });
  expect(qmp.transcript()).toMatchInlineSnapshot(`
    "
    -> {"execute":"blockdev-add","arguments":{"driver":"throttle","node-name":"th","throttle-group":"t0","file":{"driver":"memory","size":512}}}
    <- {"error":{"class":"GenericError","desc":"Throttle group 't0' does not exist"}}
    -> {"execute":"object-add","arguments":{"qom-type":"throttle-group","id":"t0"}}
    <- {"return":{}}
    -> {"execute":"blockdev-add","arguments":{"driver":"throttle","node-name":"th","throttle-group":"t0","file":{"driver":"memory","size":512}}}
    <- {"return":{}}
    -> {"execute":"object-del","arguments":{"id":"t0"}}
    <- {"error":{"class":"GenericError","desc":"Object 't0' is in use by throttle nodes"}}
    -> {"execute":"blockdev-del","arguments":{"node-name":"th"}}
    <- {"return":{}}
    -> {"execute":"object-del","arguments":{"id":"t0"}}
    <- {"return":{}}
    "
  `);
});

it("refuses other objects, and limits that make no sense", async () => {
  const qmp = await (await conversation()).negotiated();
  const add = (args: object) => qmp.execute("object-add", { id: "t0", ...args });
  await add({ "qom-type": "iothread" });
  await add({ "qom-type": "throttle-group", id: "0" });
  await add({ "qom-type": "throttle-group", speed: 1 });
  await add({ "qom-type": "throttle-group", limits: { "bps-total": -1 } });
  await add({ "qom-type": "throttle-group", limits: { "bps-max": 1 } });
  await add({ "qom-type": "throttle-group", limits: { "bps-read": 1, "bps-total": 1 } });
  expect(qmp.transcript()).toMatchInlineSnapshot(`
    "
    -> {"execute":"object-add","arguments":{"id":"t0","qom-type":"iothread"}}
    <- {"error":{"class":"GenericError","desc":"Parameter 'qom-type' does not accept value 'iothread'; it takes 'secret', 'throttle-group'"}}
    -> {"execute":"object-add","arguments":{"id":"0","qom-type":"throttle-group"}}
    <- {"error":{"class":"GenericError","desc":"Invalid object ID '0': letters, digits, '-', '.' and '_', starting with a letter"}}
    -> {"execute":"object-add","arguments":{"id":"t0","qom-type":"throttle-group","speed":1}}
    <- {"error":{"class":"GenericError","desc":"Parameter 'speed' is unexpected"}}
    -> {"execute":"object-add","arguments":{"id":"t0","qom-type":"throttle-group","limits":{"bps-total":-1}}}
    <- {"error":{"class":"GenericError","desc":"Parameter 'limits.bps-total' expects >=0; got -1"}}
    -> {"execute":"object-add","arguments":{"id":"t0","qom-type":"throttle-group","limits":{"bps-max":1}}}
    <- {"error":{"class":"GenericError","desc":"Parameter 'limits.bps-max' is unexpected"}}
    -> {"execute":"object-add","arguments":{"id":"t0","qom-type":"throttle-group","limits":{"bps-read":1,"bps-total":1}}}
    <- {"error":{"class":"GenericError","desc":"These throttle limits cannot be: 'bps-total' and 'bps-read', 'bps-write' exclude each other"}}
    "
  `);
});

it("are listed as a tree, by their types and properties", async () => {
  const qmp = await (await conversation()).negotiated();
  await qmp.execute("object-add", {
    id: "t0",
    "qom-type": "throttle-group",
    "x-bps-total": 100,
    "x-iops-total": 7,
    limits: { "bps-total": 5 },
  });
  const answer = async (name: string, args: object = {}) =>
    (await qmp.execute(name, args))["return"] ?? "error";
  expect(await answer("qom-get", { path: "t0", property: "x-bps-total" })).toBe(5);
  expect(await answer("qom-get", { path: "/objects/t0", property: "x-iops-total" })).toBe(7);
  expect(await answer("qom-get", { path: "t0", property: "type" })).toBe("throttle-group");
  expect(await answer("qom-get", { path: "/objects", property: "t0" })).toBe("/objects/t0");
  expect(await answer("qom-list", { path: "/objects" })).toEqual([
    { name: "type", type: "string" },
    { name: "t0", type: "child<throttle-group>" },
  ]);
  expect(await answer("qom-list", { path: "t0" })).toEqual(
    await answer("qom-list-properties", { typename: "throttle-group" }),
  );
  expect(await answer("qom-list", { path: "/objects/nope" })).toBe("error");
  expect(await answer("qom-list-types", { implements: "user-creatable" })).toEqual([
    { name: "secret", parent: "secret_common" },
    { name: "throttle-group", parent: "object" },
  ]);
  expect(await answer("qom-list-types", { implements: "nope" })).toEqual([]);
  const set = { path: "t0", property: "x-bps-total", value: 9 };
  expect(await answer("qom-set", set)).toBe("error");
  expect(await answer("object-add", { id: "i", "qom-type": "iothread" })).toBe("error");
});
