/** Making, opening, showing, exporting and closing nodes, as a client types it. */

import { describe, expect, it } from "vitest";
import { Conversation, conversation, testEngine } from "./conversation.ts";

describe("blockdev-create", () => {
  it("makes an image in a job that stays until it is dismissed", async () => {
    const world = await testEngine();
    const qmp = await new Conversation(world).negotiated();
    await create(qmp, "j", { driver: "memory", name: "m", size: 1048576 });
    await world.clock.advance(0);
    await qmp.execute("query-jobs");
    await qmp.execute("query-block-jobs");
    await create(qmp, "j", { driver: "memory", name: "m2", size: 0 });
    await qmp.execute("job-dismiss", { id: "j" });
    await qmp.execute("query-jobs");
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"blockdev-create","arguments":{"job-id":"j","options":{"driver":"memory","name":"m","size":1048576}}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"created"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"running"}}
      <- {"return":{}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"waiting"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"pending"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"concluded"}}
      -> {"execute":"query-jobs"}
      <- {"return":[{"id":"j","type":"create","status":"concluded","current-progress":1,"total-progress":1}]}
      -> {"execute":"query-block-jobs"}
      <- {"return":[]}
      -> {"execute":"blockdev-create","arguments":{"job-id":"j","options":{"driver":"memory","name":"m2","size":0}}}
      <- {"error":{"class":"GenericError","desc":"Job ID 'j' is already in use"}}
      -> {"execute":"job-dismiss","arguments":{"id":"j"}}
      <- {"event":"JOB_STATUS_CHANGE","data":{"id":"j","status":"null"}}
      <- {"return":{}}
      -> {"execute":"query-jobs"}
      <- {"return":[]}
      "
    `);
  });

  it("refuses at once what no job could do", async () => {
    const qmp = await (await conversation()).negotiated();
    await create(qmp, "j", { driver: "copy-on-read" });
    await create(qmp, "j", { driver: "no-such-driver" });
    await create(qmp, "0j", { driver: "memory", name: "m", size: 0 });
    await qmp.execute("blockdev-create", { "job-id": "j" });
    const refusals = qmp.received.filter((message) => "error" in message);
    expect(refusals).toHaveLength(4);
    expect(qmp.received.some((message) => "event" in message)).toBe(false);
  });
});

describe("nodes", () => {
  it("are opened, listed and closed by name", async () => {
    const qmp = await (await conversation()).negotiated();
    await qmp.execute("blockdev-add", { driver: "memory", "node-name": "m", size: 65536 });
    await qmp.execute("blockdev-add", { driver: "memory", "node-name": "m", size: 65536 });
    await qmp.execute("blockdev-add", { driver: "memory", size: 65536 });
    await qmp.execute("query-named-block-nodes");
    await qmp.execute("blockdev-del", { "node-name": "m" });
    await qmp.execute("blockdev-del", { "node-name": "m" });
    await qmp.execute("query-named-block-nodes");
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"blockdev-add","arguments":{"driver":"memory","node-name":"m","size":65536}}
      <- {"return":{}}
      -> {"execute":"blockdev-add","arguments":{"driver":"memory","node-name":"m","size":65536}}
      <- {"error":{"class":"GenericError","desc":"There is a node 'm' already"}}
      -> {"execute":"blockdev-add","arguments":{"driver":"memory","size":65536}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'node-name' is missing: it must be given for a root"}}
      -> {"execute":"query-named-block-nodes"}
      <- {"return":[{"file":"json:{\\"driver\\":\\"memory\\"}","node-name":"m","ro":false,"drv":"memory","backing_file_depth":0,"children":[],"active":true,"encrypted":false,"detect_zeroes":"off","bps":0,"bps_rd":0,"bps_wr":0,"iops":0,"iops_rd":0,"iops_wr":0,"image":{"filename":"json:{\\"driver\\":\\"memory\\"}","format":"memory","virtual-size":65536,"dirty-flag":false},"cache":{"writeback":true,"direct":false,"no-flush":false},"write_threshold":0}]}
      -> {"execute":"blockdev-del","arguments":{"node-name":"m"}}
      <- {"return":{}}
      -> {"execute":"blockdev-del","arguments":{"node-name":"m"}}
      <- {"error":{"class":"GenericError","desc":"Cannot find node 'm'"}}
      -> {"execute":"query-named-block-nodes"}
      <- {"return":[]}
      "
    `);
  });

  it("show their chain as images nested in images, or not if flat", async () => {
    const qmp = await (await conversation()).negotiated();
    await qmp.execute("blockdev-add", chain("top", "mid", "base"));
    const deep = shapes(await qmp.execute("query-named-block-nodes"));
    expect(deep).toEqual([
      "base: tiny depth 0, file=#block3",
      "#block3: memory depth 0, ",
      "mid: tiny/tiny depth 1, file=#block2 backing=base",
      "#block2: memory depth 0, ",
      "top: tiny/tiny/tiny depth 2, file=#block1 backing=mid",
      "#block1: memory depth 0, ",
    ]);
    const flat = shapes(await qmp.execute("query-named-block-nodes", { flat: true }));
    expect(flat[4]).toBe("top: tiny depth 0, file=#block1 backing=mid");
  });
});

describe("exports", () => {
  it("are devices, by their id", async () => {
    const qmp = await (await conversation()).negotiated();
    await qmp.execute("blockdev-add", { driver: "memory", "node-name": "m", size: 65536 });
    qmp.transcript();
    await add(qmp, "e", "m");
    await qmp.execute("query-block");
    await qmp.execute("query-block-exports");
    await qmp.execute("blockdev-del", { "node-name": "m" });
    await qmp.execute("block-export-del", { id: "e" });
    await qmp.execute("blockdev-del", { "node-name": "m" });
    await qmp.execute("query-block");
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"block-export-add","arguments":{"type":"message-port","id":"e","node-name":"m"}}
      <- {"return":{}}
      -> {"execute":"query-block"}
      <- {"return":[{"device":"e","type":"unknown","removable":false,"locked":false,"inserted":{"file":"json:{\\"driver\\":\\"memory\\"}","node-name":"m","ro":false,"drv":"memory","backing_file_depth":0,"children":[],"active":true,"encrypted":false,"detect_zeroes":"off","bps":0,"bps_rd":0,"bps_wr":0,"iops":0,"iops_rd":0,"iops_wr":0,"image":{"filename":"json:{\\"driver\\":\\"memory\\"}","format":"memory","virtual-size":65536,"dirty-flag":false},"cache":{"writeback":true,"direct":false,"no-flush":false},"write_threshold":0}}]}
      -> {"execute":"query-block-exports"}
      <- {"return":[{"id":"e","type":"message-port","node-name":"m","shutting-down":false}]}
      -> {"execute":"blockdev-del","arguments":{"node-name":"m"}}
      <- {"error":{"class":"GenericError","desc":"Node 'm' is in use by export 'e'"}}
      -> {"execute":"block-export-del","arguments":{"id":"e"}}
      <- {"event":"BLOCK_EXPORT_DELETED","data":{"id":"e"}}
      <- {"return":{}}
      -> {"execute":"blockdev-del","arguments":{"node-name":"m"}}
      <- {"return":{}}
      -> {"execute":"query-block"}
      <- {"return":[]}
      "
    `);
  });

  it("are refused where they do not fit", async () => {
    const qmp = await (await conversation()).negotiated();
    const readOnly = { driver: "memory", "node-name": "ro", size: 512, "read-only": true };
    await qmp.execute("blockdev-add", readOnly);
    await qmp.execute("blockdev-add", { driver: "memory", "node-name": "m", size: 512 });
    await add(qmp, "e", "m");
    qmp.transcript();
    await add(qmp, "e", "m");
    await add(qmp, "m", "m");
    await add(qmp, "1e", "m");
    await add(qmp, "f", "no-such-node");
    await add(qmp, "f", "ro", true);
    await qmp.execute("block-export-del", { id: "f" });
    await qmp.execute("block-export-del", { id: "e", mode: "rough" });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"block-export-add","arguments":{"type":"message-port","id":"e","node-name":"m"}}
      <- {"error":{"class":"GenericError","desc":"Block export id 'e' is already in use"}}
      -> {"execute":"block-export-add","arguments":{"type":"message-port","id":"m","node-name":"m"}}
      <- {"error":{"class":"GenericError","desc":"'m' is the name of a node"}}
      -> {"execute":"block-export-add","arguments":{"type":"message-port","id":"1e","node-name":"m"}}
      <- {"error":{"class":"GenericError","desc":"Invalid block export id '1e': expected a letter, then letters, digits, '-', '.' and '_'"}}
      -> {"execute":"block-export-add","arguments":{"type":"message-port","id":"f","node-name":"no-such-node"}}
      <- {"error":{"class":"GenericError","desc":"Cannot find node 'no-such-node'"}}
      -> {"execute":"block-export-add","arguments":{"type":"message-port","id":"f","node-name":"ro","writable":true}}
      <- {"error":{"class":"GenericError","desc":"Node 'ro' is read-only: it cannot be written through"}}
      -> {"execute":"block-export-del","arguments":{"id":"f"}}
      <- {"error":{"class":"GenericError","desc":"Export 'f' is not found"}}
      -> {"execute":"block-export-del","arguments":{"id":"e","mode":"rough"}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'mode' does not accept value 'rough'; it takes 'safe', 'hard'"}}
      "
    `);
  });

  it("leave their name to others when they are gone", async () => {
    const qmp = await (await conversation()).negotiated();
    await qmp.execute("blockdev-add", { driver: "memory", "node-name": "m", size: 512 });
    await add(qmp, "e", "m");
    expect(await qmp.execute("blockdev-add", { driver: "memory", "node-name": "e" })).toMatchObject(
      {
        error: { class: "GenericError" },
      },
    );
    await qmp.execute("block-export-del", { id: "e", mode: "hard" });
    expect(await add(qmp, "e", "m")).toEqual({ return: {} });
  });
});

function create(qmp: Conversation, id: string, options: object) {
  return qmp.execute("blockdev-create", { "job-id": id, options });
}

function add(qmp: Conversation, id: string, node: string, writable?: boolean) {
  return qmp.execute("block-export-add", {
    type: "message-port",
    id,
    "node-name": node,
    ...(writable !== undefined && { writable }),
  });
}

/** Options of a chain of tiny images, the first name on top. */
function chain(name: string, ...below: string[]): object {
  const [next, ...rest] = below;
  return {
    driver: "tiny",
    "node-name": name,
    size: 1048576,
    "cluster-size": 65536,
    file: { driver: "memory", size: 0 },
    ...(next && { backing: chain(next, ...rest) }),
  };
}

/** Of query-named-block-nodes: name, formats from top to base, depth, children. */
function shapes(reply: object): string[] {
  interface Image {
    format: string;
    "backing-image"?: Image;
  }
  interface Node {
    "node-name": string;
    image: Image;
    backing_file_depth: number;
    children: { child: string; "node-name": string }[];
  }
  const formats = (image: Image): string[] => [
    image.format,
    ...(image["backing-image"] ? formats(image["backing-image"]) : []),
  ];
  return (reply as { return: Node[] }).return.map((node) => {
    const children = node.children.map((edge) => `${edge.child}=${edge["node-name"]}`).join(" ");
    const images = formats(node.image).join("/");
    return `${node["node-name"]}: ${images} depth ${node.backing_file_depth}, ${children}`;
  });
}
