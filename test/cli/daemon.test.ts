/** The life of a daemon, each in a process of its own: from its options to its exit status. */

import { spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  createReadStream,
  createWriteStream,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ensureCli, ensureWasm } from "../../scripts/setup.mjs";
import { BLOCKTAB, connectTo, type Message, QEMU, Running, Talk, talkTo } from "./running.ts";

let folder: string;
const running: Running[] = [];

beforeAll(async () => {
  await ensureWasm();
  await ensureCli();
});

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "blocktab-daemon-"));
});

afterEach(async () => {
  for (const daemon of running.splice(0)) {
    daemon.kill("SIGKILL");
    await daemon.ended;
  }
  rmSync(folder, { recursive: true });
});

function start(...args: string[]): Running {
  const daemon = new Running(BLOCKTAB, args, folder);
  running.push(daemon);
  return daemon;
}

const STDIO = ["--chardev", "stdio,id=c", "--monitor", "c"];
const SOCKET = ["--chardev", "socket,path=qmp.sock,server=on,wait=off,id=s", "--monitor", "s"];
const inFolder = (name: string) => join(folder, name);

/** A disk of 64 MiB whose stream takes a second for every MiB. */
function diskWithBase(): string[] {
  const make = (...args: string[]) => spawnSync("qemu-img", ["create", "-q", ...args]);
  make("-f", "qcow2", inFolder("base.qcow2"), "64M");
  spawnSync("qemu-io", ["-c", "write -P 7 0 64M", inFolder("base.qcow2")]);
  make("-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", inFolder("top.qcow2"));
  return [
    "--blockdev",
    "file,node-name=bf,filename=base.qcow2",
    "--blockdev",
    "qcow2,node-name=base,file=bf",
    "--blockdev",
    "qcow2,node-name=top,file.driver=file,file.filename=top.qcow2,backing=base",
  ];
}

const SLOW_STREAM = { "job-id": "j", device: "top", speed: 1024 * 1024 };

describe("options", () => {
  it("are carried out in their order, JSON and lists alike", async () => {
    writeFileSync(inFolder("a,b.raw"), new Uint8Array(65536));
    const { talk } = start(
      "--object",
      "throttle-group,id=g,limits.iops-total=0x10",
      "--blockdev",
      "file,node-name=f,filename=a,,b.raw",
      "--blockdev",
      '{"driver": "raw", "node-name": "r", "file": "f", "size": 512}',
      "--blockdev",
      "driver=throttle,node-name=t,throttle-group=g,file.driver=raw,file.file=r,read-only=on",
      ...STDIO,
    );
    await talk.negotiate();
    const { return: nodes } = await talk.execute("query-named-block-nodes");
    const byName = new Map((nodes as { "node-name": string }[]).map((n) => [n["node-name"], n]));
    expect([...byName.keys()]).toEqual(expect.arrayContaining(["f", "r", "t"]));
    expect(byName.get("r")).toMatchObject({ drv: "raw", image: { "virtual-size": 512 } });
    expect(byName.get("t")).toMatchObject({ drv: "throttle", ro: true });
    const { return: limits } = await talk.execute("qom-get", { path: "g", property: "limits" });
    expect(limits).toMatchObject({ "iops-total": 16 });
  });

  const WRONG: [string, string[], RegExp][] = [
    ["a node that cannot be opened", ["--blockdev", "file,node-name=f,filename=no"], /'no'/],
    ["an option behind its use", ["--monitor", "c", ...STDIO], /--monitor c: .*'c'/],
    ["two monitors on one device", [...STDIO, "--monitor", "c"], /--monitor c: .*'c' is in use/],
    ["two devices of one id", ["--chardev", "null,id=n", "--chardev", "null,id=n"], /'n'/],
    ["two devices on stdio", ["--chardev", "stdio,id=a", "--chardev", "stdio,id=b"], /stdio/],
    ["JSON that is none", ["--blockdev", '{"driver":'], /JSON/],
    ["an export before there is a server", ["--export", "nbd,id=e,node-name=n"], /--export nbd/],
    ["help where there is none", ["--blockdev", "raw,help"], /no help/],
    ["an abstract socket", ["--chardev", "socket,id=c,path=x,abstract=on,server=on"], /'abstract'/],
    ["a file descriptor", ["--chardev", "socket,id=c,fd=3,server=on"], /'fd'/],
    ["both kinds of address", ["--chardev", "socket,id=c,path=x,host=a,port=1"], /either 'path'/],
    ["a socket in place of a file", ["--chardev", "socket,id=c,path=/,server=on"], /'?\/'?/],
    ["nobody to connect to", ["--chardev", "socket,id=c,path=nobody"], /nobody/],
    ["a pipe that is none", ["--chardev", "pipe,id=c,path=/dev/null"], /not a pipe/],
  ];
  it.each(WRONG)("refused: %s", async (_, args, why) => {
    const { status, stderr } = await start("--pidfile", "pid", ...args).ended;
    expect(stderr).toMatch(/^blocktab daemon: .*\n$/);
    expect(stderr).toMatch(why);
    expect(status).toBe(1);
    expect(existsSync(inFolder("pid"))).toBe(false);
  });

  it("leave nothing behind if a later one is wrong", async () => {
    const args = ["--nbd-server", "addr.type=unix,addr.path=nbd.sock", ...SOCKET, "--nonsense"];
    expect((await start(...args.slice(0, -1), "--blockdev", "raw").ended).status).toBe(1);
    expect(existsSync(inFolder("qmp.sock"))).toBe(false);
    expect(existsSync(inFolder("nbd.sock"))).toBe(false);
  });

  it("do not remove a file that stands where a socket should be", async () => {
    writeFileSync(inFolder("qmp.sock"), "precious");
    const { status, stderr } = await start(...SOCKET).ended;
    expect(status).toBe(1);
    expect(stderr).toMatch(/qmp\.sock/);
    expect(readFileSync(inFolder("qmp.sock"), "utf8")).toBe("precious");
  });
});

/** Option lists, and whether they are taken. Where they are not, the next option is never come to. */
const LISTS: [string, boolean][] = [
  ["--chardev null,id=n", true],
  ["--chardev backend=null,id=n,", true],
  ["--chardev null", false],
  ["--chardev null,id=1", false],
  ["--chardev null,id=n,foo=on", false],
  ["--chardev nonsense,id=n", false],
  ["--chardev socket,id=n,path=x.sock,server=on,wait=off", true],
  ["--chardev socket,id=n,path=x.sock,server,nowait", true],
  ["--chardev socket,id=n,path=x.sock,server=on,wait=maybe", false],
  ["--chardev socket,id=n,path=x.sock,wait=on", false],
  ["--chardev socket,id=n,path=x.sock,reconnect=1", true],
  ["--chardev socket,id=n,path=x.sock,server=on,wait=off,reconnect=1", false],
  ["--chardev socket,id=n,host=127.0.0.1,port=0,server=on,wait=off", true],
  ["--chardev socket,id=n,host=127.0.0.1,server=on,wait=off", false],
  ["--chardev file,id=n,path=out", true],
  ["--chardev file,id=n", false],
  ["--chardev null,id=n --monitor chardev=n,mode=control,pretty=yes", true],
  ["--chardev null,id=n --monitor n,mode=readline", false],
  ["--chardev null,id=n --monitor n,pretty", false],
  ["--chardev null,id=n --monitor n,foo=1", false],
  ["--blockdev file,node-name=f,filename=disk.raw", true],
  ["--blockdev file,node-name=f,filename=disk.raw,", true],
  ["--blockdev file,node-name=f,node-name=g,filename=disk.raw", true],
  ["--blockdev file,node-name=f,filename.a=disk.raw", false],
  ["--blockdev file,node-name=f,filename=disk.raw,filename=", false],
  ["--blockdev raw,node-name=r,file.driver=file,file.filename=disk.raw,offset=0x200", true],
  ["--blockdev raw,node-name=r,file.driver=file,file.filename=disk.raw,offset=01000", true],
  ["--blockdev raw,node-name=r,file.driver=file,file.filename=disk.raw,offset=1K", false],
  ["--blockdev raw,node-name=r,file.driver=file,file.filename=disk.raw,offset=", false],
  ["--blockdev raw,node-name=r,file.driver=file,file.filename=disk.raw,read-only=y", true],
  ["--blockdev raw,node-name=r,file.driver=file,file.filename=disk.raw,read-only=On", false],
  ["--blockdev raw,node-name=r,file=nobody", false],
  ["--blockdev raw,node-name=r", false],
  ["--object throttle-group,id=t,limits.iops-total=5", true],
  ["--object throttle-group,id=t,limits.nonsense=5", false],
  ["--object throttle-group,limits.iops-total=5", false],
  ["--object nonsense,id=t", false],
  ["--nbd-server addr.type=unix,addr.path=n.sock", true],
  ["--nbd-server addr.type=unix,addr.path=n.sock,max-connections=x", false],
  ["--nbd-server addr.type=unix", false],
  ["--nbd-server addr.type=inet,addr.host=127.0.0.1,addr.port=0", true],
  ["--nbd-server addr.type=unix,addr.data.path=n.sock", false],
  ["--nbd-server addr.type=unix,addr.path=n.sock --export nbd,id=e,node-name=nobody", false],
  ["--pidfile one --pidfile two", true],
];

it.each(LISTS)("takes and refuses as qemu-storage-daemon does: %s", async (list, isTaken) => {
  const outcomes = await Promise.all(
    [BLOCKTAB, QEMU].map(async (command) => {
      const own = mkdtempSync(join(folder, "run-"));
      writeFileSync(join(own, "disk.raw"), new Uint8Array(65536));
      const args = [...list.split(" "), "--monitor", "the-end"];
      const daemon = new Running(command, args, own);
      running.push(daemon);
      const { status, stderr } = await daemon.ended;
      return { status, isTaken: stderr.includes("--monitor the-end:") };
    }),
  );
  expect(outcomes).toEqual([
    { status: 1, isTaken },
    { status: 1, isTaken },
  ]);
});

describe("monitors", () => {
  it("serve several clients at once, each with a negotiation of its own", async () => {
    const { talk } = start(...STDIO, ...SOCKET, "--chardev", "null,id=n");
    const other = await talkTo(inFolder("qmp.sock"));
    await talk.negotiate();
    await other.until("QMP");
    other.send({ execute: "query-version", id: 1 });
    expect(await other.next()).toMatchObject({ error: { class: "CommandNotFound" }, id: 1 });
    const { return: devices } = await talk.execute("query-chardev");
    expect(devices).toHaveLength(3);
    expect(devices).toEqual(
      expect.arrayContaining([
        { label: "c", filename: "stdio", "frontend-open": true },
        { label: "s", filename: "unix:qmp.sock,server=on", "frontend-open": true },
        { label: "n", filename: "null", "frontend-open": false },
      ]),
    );
    const { return: backends } = await talk.execute("query-chardev-backends");
    expect(backends).toEqual(expect.arrayContaining([{ name: "stdio" }, { name: "socket" }]));
  });

  it("take one client at a time, and greet the next one anew", async () => {
    start(...SOCKET);
    const first = await (await talkTo(inFolder("qmp.sock"))).negotiate();
    const socket = await connectTo(inFolder("qmp.sock"));
    const second = new Talk(socket, socket);
    // It waits: nothing has come by the time that the first has had its answers.
    for (let i = 0; i < 20; i++) await first.execute("query-version");
    expect(second.text).toBe("");
    first.hangUp();
    expect(await second.next()).toHaveProperty("QMP");
    second.send({ execute: "query-version", id: 2 });
    expect(await second.next()).toMatchObject({ error: { class: "CommandNotFound" }, id: 2 });
    await second.execute("qmp_capabilities");
    expect(await second.execute("query-version")).toHaveProperty("return");
  });

  it("answer what a client has asked before it closed its side", async () => {
    const { talk, child, ended } = start(
      "--chardev",
      "socket,path=qmp.sock,server=on,id=s",
      ...SOCKET.slice(2),
    );
    expect(talk.text).toBe("");
    const client = await talkTo(inFolder("qmp.sock"));
    client.send('{"execute":"qmp_capabilities"}{"execute":"query-version","id":1}');
    client.finish();
    expect(await client.until("id", 1)).toHaveProperty("return");
    expect(await client.next()).toBeNull();
    child.kill();
    expect(await ended).toMatchObject({ status: 0 });
  });

  it("take characters that come in pieces, and write all but ASCII as escapes", async () => {
    const { talk, child } = start(...STDIO);
    await talk.until("QMP");
    const bytes = Buffer.from('{"execute":"qmp_capabilities","id":"é☃𝄞"}');
    for (const byte of bytes) child.stdin!.write(new Uint8Array([byte]));
    expect(await talk.next()).toEqual({ return: {}, id: "é☃𝄞" });
    expect(talk.text).toContain("\\u00E9\\u2603\\uD834\\uDD1E");
  });

  it("with pretty=on spread what they say over lines, as qemu-storage-daemon does", async () => {
    const said = await Promise.all(
      [BLOCKTAB, QEMU].map(async (command) => {
        const args = ["--chardev", "stdio,id=c", "--monitor", "c,pretty=on"];
        const daemon = new Running(command, args, folder);
        running.push(daemon);
        daemon.talk.send('{"execute":"qmp_capabilities"}{"execute":"query-chardev","id":[]}');
        daemon.talk.send('{"execute":"quit"}');
        await daemon.ended;
        return daemon.talk.text.slice(daemon.talk.text.indexOf("}\r\n"));
      }),
    );
    expect(said[0]).toBe(said[1]);
    expect(said[0]).toContain('    "return": {\r\n    }\r\n');
  });

  it("do not read on from a client that does not read; others are served, and nothing is lost", async () => {
    const { talk } = start(...STDIO, ...SOCKET);
    const slow = await connectTo(inFolder("qmp.sock"));
    // Answers of some 30 MB: more than anybody keeps for it.
    const requests = 12_000;
    slow.write('{"execute":"qmp_capabilities"}');
    slow.write('{"execute":"query-commands"}'.repeat(requests));
    await talk.negotiate();
    for (let i = 0; i < 50; i++) {
      expect(await talk.execute("query-version")).toHaveProperty("return");
    }
    let lines = 0;
    slow.on("data", (piece) => {
      for (const byte of piece) if (byte === 10) lines++;
    });
    slow.end();
    await once(slow, "close");
    // The greeting, and an answer to each.
    expect(lines).toBe(requests + 2);
  });

  it("go to a listening client, and to it again when it comes back", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(inFolder("client.sock"), resolve));
    start("--chardev", "socket,id=s,path=client.sock,reconnect=1", "--monitor", "s");
    for (let round = 0; round < 2; round++) {
      const [socket] = await once(server, "connection");
      const talk = new Talk(socket, socket);
      await talk.negotiate();
      talk.hangUp();
    }
    server.close();
  });

  it("write to a file what they have to say", async () => {
    writeFileSync(inFolder("in"), '{"execute":"qmp_capabilities"}{"execute":"quit"}');
    const args = ["--chardev", "file,id=f,path=out,input-path=in", "--monitor", "f"];
    expect(await start(...args).ended).toMatchObject({ status: 0 });
    expect(readFileSync(inFolder("out"), "utf8")).toMatch(
      /^\{"QMP".*\r\n(\{"return": \{\}\}\r\n){2}$/,
    );
  });

  it("speak over named pipes", async () => {
    for (const name of ["p.in", "p.out"]) spawnSync("mkfifo", [inFolder(name)]);
    const { ended } = start("--chardev", "pipe,id=p,path=p", "--monitor", "p");
    const reader = createReadStream(inFolder("p.out"));
    const writer = createWriteStream(inFolder("p.in"));
    const talk = await new Talk(reader, writer).negotiate();
    talk.send({ execute: "quit" });
    expect(await ended).toMatchObject({ status: 0 });
    talk.hangUp();
  });
});

describe("ends", () => {
  it("with quit: cancels jobs and tells of it, replies, and says nothing after that", async () => {
    const { talk, ended } = start(...diskWithBase(), ...STDIO, ...SOCKET, "--pidfile", "pid");
    await talk.negotiate();
    const other = await (await talkTo(inFolder("qmp.sock"))).negotiate();
    await talk.execute("block-stream", SLOW_STREAM);
    talk.send({ execute: "quit", id: "bye" });
    talk.send({ execute: "query-jobs", id: "late" });
    expect(await ended).toEqual({ status: 0, signal: null, stderr: "" });
    const told = await allOf(talk);
    expect(told.at(-1)).toEqual({ return: {}, id: "bye" });
    expect(told.some(({ id }) => id === "late")).toBe(false);
    expect(statusesOf(told).slice(-3)).toEqual(["aborting", "concluded", "null"]);
    expect(statusesOf(await allOf(other)).slice(-3)).toEqual(["aborting", "concluded", "null"]);
    for (const name of ["pid", "qmp.sock"]) expect(existsSync(inFolder(name))).toBe(false);
    expect(spawnSync("qemu-img", ["check", "-q", inFolder("top.qcow2")]).status).toBe(0);
  });

  it.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)("with %s, as with quit", async (signal) => {
    const { talk, ended, child } = start(
      ...diskWithBase(),
      ...STDIO,
      ...SOCKET,
      "--pidfile",
      "pid",
    );
    await talk.negotiate();
    await talk.execute("block-stream", SLOW_STREAM);
    expect(readFileSync(inFolder("pid"), "utf8")).toBe(`${child.pid}\n`);
    child.kill(signal);
    expect(await ended).toEqual({ status: 0, signal: null, stderr: "" });
    expect(statusesOf(await allOf(talk)).slice(-3)).toEqual(["aborting", "concluded", "null"]);
    for (const name of ["pid", "qmp.sock"]) expect(existsSync(inFolder(name))).toBe(false);
    expect(spawnSync("qemu-img", ["check", "-q", inFolder("top.qcow2")]).status).toBe(0);
  });

  it("with a signal while it waits for its first client", async () => {
    const { child, ended } = start("--chardev", "socket,path=qmp.sock,server=on,id=s");
    // It listens, and then somebody who does not stay is no reason to go on.
    while (!existsSync(inFolder("qmp.sock"))) await new Promise((r) => setTimeout(r, 20));
    child.kill("SIGTERM");
    expect(await ended).toMatchObject({ status: 0 });
    expect(existsSync(inFolder("qmp.sock"))).toBe(false);
  });

  it("not with the end of its input", async () => {
    const { talk, child } = start(...STDIO, ...SOCKET);
    await talk.negotiate();
    child.stdin!.end();
    const other = await (await talkTo(inFolder("qmp.sock"))).negotiate();
    expect(await other.execute("query-version")).toHaveProperty("return");
    expect(child.exitCode).toBeNull();
  });

  it("not because nothing is left that could wake it, and then writes what it has", async () => {
    spawnSync("qemu-img", ["create", "-qf", "qcow2", inFolder("d.qcow2"), "1M"]);
    const disk = ["--blockdev", "qcow2,node-name=d,file.driver=file,file.filename=d.qcow2"];
    const { talk, child, ended } = start(...disk, ...STDIO, "--pidfile", "pid");
    await talk.negotiate();
    const bitmap = { node: "d", name: "kept", persistent: true };
    await talk.execute("block-dirty-bitmap-add", bitmap);
    talk.finish();
    // Its monitor is closed with the end of its input: that is all it had to listen to.
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(child.exitCode).toBeNull();
    child.kill("SIGTERM");
    expect(await ended).toEqual({ status: 0, signal: null, stderr: "" });
    const info = spawnSync("qemu-img", ["info", inFolder("d.qcow2")], { encoding: "utf8" });
    expect(info.stdout).toContain("kept");
    expect(existsSync(inFolder("pid"))).toBe(false);
  });

  it("not where it was told to do nothing at all", async () => {
    const { child, ended } = start("--pidfile", "pid");
    while (!existsSync(inFolder("pid"))) await new Promise((r) => setTimeout(r, 20));
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(child.exitCode).toBeNull();
    child.kill("SIGTERM");
    expect(await ended).toEqual({ status: 0, signal: null, stderr: "" });
  });

  it.each(["socket,server=on,wait=off,id=c,path=", "socket,id=c,path="])(
    "at once where %s is followed by a path that is too long, and would be cut off",
    async (chardev) => {
      const long = await start("--chardev", `${chardev}${"a".repeat(120)}`).ended;
      expect(long).toMatchObject({ status: 1, stderr: expect.stringContaining("too long") });
    },
  );

  it("by being killed: the next one takes over its socket and its pidfile", async () => {
    const args = [...SOCKET, "--pidfile", "pid"];
    const first = start(...args);
    await talkTo(inFolder("qmp.sock"));
    while (!existsSync(inFolder("pid"))) await new Promise((r) => setTimeout(r, 20));
    first.kill("SIGKILL");
    await first.ended;
    expect(existsSync(inFolder("qmp.sock"))).toBe(true);
    const second = start(...args);
    const talk = await (await talkTo(inFolder("qmp.sock"))).negotiate();
    await talk.execute("quit");
    expect(await second.ended).toMatchObject({ status: 0 });
  });

  it("at once where another one has the pidfile, which stays", async () => {
    const { child } = start(...SOCKET, "--pidfile", "pid");
    while (!existsSync(inFolder("pid"))) await new Promise((r) => setTimeout(r, 20));
    const { status, stderr } = await start("--pidfile", "pid").ended;
    expect({ status, stderr }).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/pidfile/),
    });
    expect(readFileSync(inFolder("pid"), "utf8")).toBe(`${child.pid}\n`);
  });
});

it("stops with status 1 when it is itself at fault, and writes nothing more", async () => {
  const [node, ...rest] = BLOCKTAB;
  const plant = "process.on('SIGUSR2', () => { throw new Error('planted'); })";
  const broken = [node!, "--import", `data:text/javascript,${plant}`, ...rest];
  const top = ["--blockdev", "qcow2,node-name=d,file.driver=file,file.filename=d.qcow2"];
  spawnSync("qemu-img", ["create", "-qf", "qcow2", inFolder("d.qcow2"), "1M"]);
  const nbd = ["--nbd-server", "addr.type=unix,addr.path=nbd.sock", "--export"];
  const daemon = new Running(
    broken,
    [...top, ...nbd, "nbd,id=e,node-name=d,writable=on", ...STDIO, ...SOCKET, "--pidfile", "pid"],
    folder,
  );
  running.push(daemon);
  await daemon.talk.negotiate();
  const write = new Running(
    ["qemu-io"],
    ["-t", "unsafe", "-f", "raw", "-c", "write -P 5 0 64k", `nbd+unix:///d?socket=nbd.sock`],
    folder,
  );
  running.push(write);
  expect(await write.ended).toMatchObject({ status: 0 });
  const before = readFileSync(inFolder("d.qcow2"));
  daemon.kill("SIGUSR2");
  const { status, stderr } = await daemon.ended;
  expect(status).toBe(1);
  expect(stderr).toMatch(/internal error: planted\n[\s\S]*at process/);
  expect(readFileSync(inFolder("d.qcow2")).equals(before)).toBe(true);
  for (const name of ["pid", "qmp.sock"]) expect(existsSync(inFolder(name))).toBe(false);
});

describe("--daemonize", () => {
  it("returns when all is set up, and what is left serves until it is told to end", async () => {
    writeFileSync(inFolder("disk.raw"), new Uint8Array(65536));
    const { child, ended } = start(
      "--daemonize",
      ...["--pidfile", "pid", ...SOCKET, "--nbd-server", "addr.type=unix,addr.path=nbd.sock"],
      ...["--blockdev", "file,node-name=f,filename=disk.raw", "--export", "nbd,id=e,node-name=f"],
    );
    expect(await ended).toEqual({ status: 0, signal: null, stderr: "" });
    const pid = Number(readFileSync(inFolder("pid"), "utf8"));
    expect(pid).not.toBe(child.pid);
    const info = spawnSync("qemu-img", ["info", `nbd+unix:///f?socket=${inFolder("nbd.sock")}`]);
    expect(info.stdout.toString()).toContain("64 KiB");
    const talk = await (await talkTo(inFolder("qmp.sock"))).negotiate();
    await talk.execute("quit");
    await allOf(talk);
    while (existsSync(inFolder("pid"))) await new Promise((r) => setTimeout(r, 20));
    expect(existsSync(inFolder("nbd.sock"))).toBe(false);
  });

  it("tells why it could not be set up, and leaves nothing behind", async () => {
    const args = [...SOCKET, "--pidfile", "pid", "--blockdev", "file,node-name=f,filename=no"];
    const { status, stderr } = await start("--daemonize", ...args).ended;
    expect(status).toBe(1);
    expect(stderr).toMatch(/^blocktab daemon: --blockdev file.*'no'.*\n$/);
    for (const name of ["pid", "qmp.sock"]) expect(existsSync(inFolder(name))).toBe(false);
  });

  it("has no stdio to offer", async () => {
    const { status, stderr } = await start("--daemonize", ...STDIO).ended;
    expect({ status, stderr }).toMatchObject({ status: 1, stderr: expect.stringMatching(/stdio/) });
  });
});

async function allOf(talk: Talk): Promise<Message[]> {
  const messages: Message[] = [];
  for (let next = await talk.next(); next; next = await talk.next()) messages.push(next);
  return messages;
}

function statusesOf(messages: readonly Message[]): unknown[] {
  return messages
    .filter(({ event }) => event === "JOB_STATUS_CHANGE")
    .map(({ data }) => (data as { status: string }).status);
}
