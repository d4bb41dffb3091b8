/**
 * What a script has in its hand: images, commands, waits. All that is said and heard goes into the
 * transcript. Every wait has a limit; a script that waits in vain ends there, and its transcript
 * says so.
 */

import { execFile } from "node:child_process";
import type { DaemonProcess, Message } from "./daemon.ts";
import type { ImageMaker, ImageSpec } from "./images.ts";
import { collectNames } from "./names.ts";
import type { Normaliser } from "./normal.ts";
import type { Entry, Json } from "./transcript.ts";

/** Seconds for whatever is waited for. Nothing here takes one, but machines may be busy. */
export const PATIENCE = 20;

/** What an NBD server says of an error is a sentence of its own. */
const SERVER_SAYS = /^server reported: (?<error>.*)/;

const NODE_MEMBERS = ["node-name", "drv", "ro", "file", "backing_file", "dirty-bitmaps"];

/** Drivers of nodes that are as long as a file. */
const FILES = ["file", "blkdebug"];

export type Args = Readonly<Record<string, unknown>>;

/** Ends a script; the transcript has the reason. */
export class ScriptEnded extends Error {
  override readonly name = "ScriptEnded";
}

/** About one command only. */
interface Asking {
  /** The reply differs on purpose: why. If it does not, the comparison fails. */
  readonly differs?: string;
}

export class Talk {
  readonly entries: Entry[] = [];
  readonly #folder: string;
  readonly #images: ImageMaker;
  readonly #normaliser: Normaliser;
  readonly #patience: number;
  readonly #start: (hear: (message: Message | null) => void) => DaemonProcess;
  #daemon: DaemonProcess | null = null;
  /** Events since the last request for which nobody has waited yet; some come before its reply. */
  #fresh: Message[] = [];
  /** Heard, and not yet in the transcript. */
  readonly #inbox: (Message | null)[] = [];
  #wake = () => {};
  readonly #said = new Set<string>();

  constructor(init: {
    readonly folder: string;
    readonly images: ImageMaker;
    readonly normaliser: Normaliser;
    /** Seconds. */
    readonly patience: number;
    readonly start: (hear: (message: Message | null) => void) => DaemonProcess;
  }) {
    this.#folder = init.folder;
    this.#images = init.images;
    this.#normaliser = init.normaliser;
    this.#patience = init.patience;
    this.#start = init.start;
  }

  /** Where the images are; the daemon works in it, so that their names alone will do. */
  get folder(): string {
    return this.#folder;
  }

  /** Makes an image with the real qemu-img, 4 MiB of qcow2 unless said. */
  async image(name: string, spec: ImageSpec = {}): Promise<void> {
    await this.#images.copy(name, spec, this.#folder);
  }

  /** Starts the daemon, which the first command does too, and puts its greeting into the inbox. */
  async daemon(): Promise<DaemonProcess> {
    this.#daemon ??= this.#start((message) => {
      this.#inbox.push(message);
      this.#wake();
    });
    return this.#daemon;
  }

  /** Negotiates, without a word in the transcript. */
  async negotiate(): Promise<void> {
    const daemon = await this.daemon();
    await this.#next("greeting");
    daemon.send('{"execute": "qmp_capabilities"}');
    await this.#next("reply to qmp_capabilities");
  }

  /** The greeting, for scripts that negotiate on their own. */
  async greeting(): Promise<void> {
    await this.daemon();
    this.#add("event", "greeting", await this.#next("greeting"));
  }

  /** A command and its reply. @returns the `return` of the reply, or undefined if it is an error */
  async qmp(command: string, args?: Args, asking: Asking = {}): Promise<unknown> {
    const request = { execute: command, ...(args && { arguments: args }) };
    const reply = await this.#ask(JSON.stringify(request), request, command, asking);
    return reply["return"];
  }

  /** Text as it is, which has to have one reply. */
  async raw(text: string, asking: Asking = {}): Promise<void> {
    await this.#ask(text, text, "text", asking);
  }

  /** Several requests in one piece of text; as many replies are waited for. */
  async rawMany(text: string, replies: number): Promise<void> {
    const daemon = await this.daemon();
    this.#takeEarlier();
    this.entries.push({ kind: "request", about: "text", body: text });
    daemon.send(text);
    for (let i = 0; i < replies; i++) this.#add("reply", "text", await this.#next("a reply"));
  }

  /** Waits for an event with these members in its data; what comes before it is kept, too. */
  async event(name: string, match: Args = {}): Promise<void> {
    const wanted = `event ${name} ${JSON.stringify(match)}`;
    for (;;) {
      if (this.#fresh.length === 0) this.#addEvent(await this.#next(wanted));
      const message = this.#fresh.shift()!;
      if (fits(message, name, match)) return;
    }
  }

  /** Waits until a job has come to a status. */
  async job(id: string, status: string): Promise<void> {
    await this.event("JOB_STATUS_CHANGE", { id, status });
  }

  /** Waits until each of these jobs has come to its status: in any order, as what comes before. */
  async jobs(...wanted: readonly (readonly [id: string, status: string])[]): Promise<void> {
    await this.events(
      ...wanted.map(([id, status]) => ["JOB_STATUS_CHANGE", { id, status }] as const),
    );
  }

  /** Waits until each of these events has come: in any order, as what comes before. */
  async events(...wanted: readonly (readonly [name: string, match: Args])[]): Promise<void> {
    const left = new Set(wanted);
    await this.anyOrder(async () => {
      while (left.size > 0) {
        if (this.#fresh.length === 0) {
          this.#addEvent(await this.#next(`events ${JSON.stringify([...left])}`));
        }
        const message = this.#fresh.shift()!;
        for (const one of left) if (fits(message, ...one)) left.delete(one);
      }
    });
  }

  /**
   * Waits until a job is in a status, for one that it may pass through on the way. How often that has
   * to be asked is left out of the transcript.
   */
  async status(id: string, status: string): Promise<void> {
    await this.#poll("query-jobs", `job ${id} ${status}`, (jobs) =>
      (jobs as Args[]).some((job) => job["id"] === id && job["status"] === status),
    );
  }

  /** Waits until a mirror writes to both disks what guests write; without a word in the transcript. */
  async synced(id: string): Promise<void> {
    await this.#poll("query-block-jobs", `mirror ${id} in step with its guests`, (jobs) =>
      (jobs as Args[]).some((job) => job["device"] === id && job["actively-synced"] === true),
    );
  }

  /**
   * Waits until a job has got so far. How often that has to be asked is left out of the transcript.
   */
  async progress(id: string, atLeast: number): Promise<void> {
    await this.#poll("query-jobs", `progress ${atLeast} of job ${id}`, (jobs) =>
      (jobs as Args[]).some(
        (job) => job["id"] === id && Number(job["current-progress"]) >= atLeast,
      ),
    );
  }

  /** All nodes, with what is worth a look in every script; the rest is for scripts on queries. */
  async nodes(): Promise<void> {
    await this.qmp("query-named-block-nodes", { flat: true });
    const index = this.entries.findLastIndex(({ kind }) => kind === "reply");
    const reply = this.entries[index]!;
    const { return: nodes } = reply.body as { return?: Record<string, Json>[] };
    if (nodes === undefined) return;
    const short = nodes.map(({ image, ...node }) => {
      const shown = NODE_MEMBERS.filter((member) => node[member] !== undefined);
      const members = shown.map((member): [string, Json] => [member, node[member]!]);
      // How long a file is depends on the order in which clusters were asked for.
      if (node["drv"] === "file") return Object.fromEntries(members) as Json;
      // How long a file is depends on the order in which clusters were asked for.
      if (FILES.includes(node["drv"] as string)) return Object.fromEntries(members) as Json;
      const size = (image as Record<string, Json>)["virtual-size"]!;
      return Object.fromEntries([...members, ["virtual-size", size]]) as Json;
    });
    this.entries[index] = { ...reply, about: "nodes", body: { return: short } };
  }

  /** What comes in here may come in any order in QEMU. */
  async anyOrder(waits: () => Promise<void>): Promise<void> {
    // Events that nobody has waited for yet came in here, too, if they came after the reply.
    const reply = this.entries.findLastIndex(({ kind }) => kind === "reply");
    const start = Math.max(reply + 1, this.entries.length - this.#fresh.length);
    await waits();
    const group = this.entries.splice(start);
    const text = (entry: Entry) => `${entry.about} ${JSON.stringify(entry.body)}`;
    this.entries.push(...group.sort((a, b) => (text(a) < text(b) ? -1 : 1)));
  }

  /** A qcow2 as a node; its file has no name of its own unless `more.file` says so. */
  async open(node: string, filename: string, more: Args = {}): Promise<void> {
    const file = { driver: "file", filename };
    await this.qmp("blockdev-add", { driver: "qcow2", "node-name": node, file, ...more });
  }

  /** A raw image as a node. */
  async openRaw(node: string, filename: string, more: Args = {}): Promise<void> {
    const file = { driver: "file", filename };
    await this.qmp("blockdev-add", { driver: "raw", "node-name": node, file, ...more });
  }

  /**
   * Makes a node a disk that guests reach by NBD under its name. Needs a server: see `serve`.
   */
  async exportNbd(node: string, more: Args = {}): Promise<void> {
    const own = { type: "nbd", id: `x-${node}`, "node-name": node, name: node, writable: true };
    await this.qmp("block-export-add", { ...own, ...more });
  }

  /** Starts the NBD server on a socket in the folder. */
  async serve(): Promise<void> {
    const addr = { type: "unix", data: { path: "nbd.sock" } };
    await this.qmp("nbd-server-start", { addr });
  }

  /** The real qemu-io as a guest of an export; each command is one of its own: "read -P 1 0 64k". */
  async io(exportName: string, ...commands: string[]): Promise<void> {
    const url = `nbd+unix:///${exportName}?socket=nbd.sock`;
    const args = ["-f", "raw", ...commands.flatMap((command) => ["-c", command]), url];
    const output = await this.#tool("qemu-io", args);
    // "64 KiB, 1 ops; 00.00 sec (1 GiB/sec …": how long it took
    const lines = output
      .split("\n")
      .filter((line) => line !== "" && !/ ops; /.test(line))
      .map((line) => SERVER_SAYS.exec(line)?.groups ?? line);
    this.#add("tool", `qemu-io ${exportName} ${JSON.stringify(commands)}`, lines);
  }

  /** From here on the two differ on purpose; nothing is compared but that they do. */
  parting(why: string): void {
    this.entries.push({ kind: "parting", about: why, body: null });
  }

  /** Ends the run from the harness's side: what is left, the end, the exit status. */
  async finish(): Promise<void> {
    if (this.#daemon === null) return;
    for (const query of ["query-jobs", "query-block-exports"]) await this.qmp(query);
    await this.nodes();
    await this.#quit();
  }

  /** Says quit and waits for the end of the daemon. */
  async #quit(): Promise<void> {
    await this.qmp("quit");
    for (;;) {
      const message = await this.#nextOrNull("end of the daemon");
      if (message === null) break;
      this.#addEvent(message);
    }
    this.#add("tool", "end of the daemon", { how: await this.#daemon!.end(this.#patience) });
  }

  async #ask(text: string, shown: Json | object, about: string, asking: Asking): Promise<Message> {
    const daemon = await this.daemon();
    this.#takeEarlier();
    this.#fresh = [];
    collectNames(shown, this.#said);
    this.entries.push({ kind: "request", about, body: shown as Json });
    daemon.send(text);
    const early: Message[] = [];
    for (;;) {
      const message = await this.#next(`reply to ${about}`);
      if ("event" in message) {
        early.push(message);
        continue;
      }
      for (const event of early.filter(isCreated)) this.#addEvent(event);
      this.#add("reply", about, message, asking.differs);
      for (const event of early.filter((event) => !isCreated(event))) this.#addEvent(event);
      return message;
    }
  }

  /** Asks without a word in the transcript until the answer is good; events on the way are kept. */
  async #poll(command: string, wanted: string, isGood: (answer: unknown) => boolean) {
    const end = performance.now() + this.#patience * 1000;
    while (performance.now() < end) {
      this.#daemon!.send(JSON.stringify({ execute: command }));
      let message = await this.#next(wanted);
      for (; "event" in message; message = await this.#next(wanted)) this.#addEvent(message);
      if (isGood(message["return"])) return;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    throw this.#trouble(`no ${wanted} within ${this.#patience} seconds`);
  }

  /** What has come in since the last wait belongs to the request before. */
  #takeEarlier(): void {
    while (this.#inbox[0] && "event" in this.#inbox[0]) this.#addEvent(this.#inbox.shift()!);
  }

  #addEvent(message: Message): void {
    this.#fresh.push(message);
    this.#add("event", String(message["event"]), message["data"] ?? null);
  }

  #add(kind: Entry["kind"], about: string, body: unknown, differs?: string): void {
    const normal = this.#normaliser.normalise(body, this.#said);
    this.entries.push({ kind, about, body: normal, ...(differs !== undefined && { differs }) });
  }

  async #next(wanted: string): Promise<Message> {
    const message = await this.#nextOrNull(wanted);
    if (message === null) {
      const how = await this.#daemon!.end(this.#patience);
      throw this.#trouble(`the daemon has ended (${how}) instead of: ${wanted}`);
    }
    return message;
  }

  /** Null once the daemon is gone. */
  async #nextOrNull(wanted: string): Promise<Message | null> {
    if (this.#inbox.length === 0) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, this.#patience * 1000);
      });
      clearTimeout(timer);
    }
    const message = this.#inbox.shift();
    if (message === undefined) throw this.#trouble(`no ${wanted} within ${this.#patience} seconds`);
    return message;
  }

  #trouble(what: string): ScriptEnded {
    this.entries.push({ kind: "trouble", about: what, body: null });
    return new ScriptEnded(what);
  }

  /** Both outputs of a tool, whatever its exit status. */
  #tool(program: string, args: readonly string[]): Promise<string> {
    const options = { cwd: this.#folder, timeout: this.#patience * 1000 };
    return new Promise((resolve) => {
      execFile(program, args, options, (_error, stdout, stderr) => resolve(stdout + stderr));
    });
  }
}

function fits(message: Message, name: string, match: Args): boolean {
  const data = (message["data"] ?? {}) as Args;
  if (message["event"] !== name) return false;
  return Object.entries(match).every(([member, value]) => data[member] === value);
}

function isCreated({ event, data }: Message): boolean {
  return event === "JOB_STATUS_CHANGE" && (data as Args)["status"] === "created";
}
