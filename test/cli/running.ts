/** A daemon as a process of its own, ours or another, and QMP conversations with it. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createConnection, type Socket } from "node:net";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { ROOT } from "../../scripts/setup.mjs";

export const BLOCKTAB = [process.execPath, join(ROOT, "bin", "blocktab.mjs"), "daemon"];
export const QEMU = ["qemu-storage-daemon"];

export interface Ended {
  readonly status: number | null;
  readonly signal: string | null;
  readonly stderr: string;
}

export type Message = Record<string, unknown>;

/** A QMP client that waits for one message after the other. */
export class Talk {
  /** All that came, as text. */
  text = "";
  #read = 0;
  #hasEnded = false;
  readonly #input: Readable;
  readonly #output: Writable;

  constructor(input: Readable, output: Writable) {
    this.#input = input;
    this.#output = output;
    input.setEncoding("utf8");
    input.on("data", (piece: string) => {
      this.text += piece;
    });
    for (const event of ["end", "close", "error"]) {
      input.on(event, () => {
        this.#hasEnded = true;
      });
    }
    output.on("error", () => {});
  }

  send(message: object | string): void {
    this.#output.write(typeof message === "string" ? message : JSON.stringify(message));
  }

  /** Asks for nothing more, and goes on reading. */
  finish(): void {
    this.#output.end();
  }

  hangUp(): void {
    this.#output.destroy();
    this.#input.destroy();
  }

  /** The next message; null when no more will come. */
  async next(): Promise<Message | null> {
    for (;;) {
      const end = this.text.indexOf("\r\n", this.#read);
      if (end >= 0) {
        const line = this.text.slice(this.#read, end);
        this.#read = end + 2;
        return JSON.parse(line);
      }
      if (this.#hasEnded) return null;
      const done = new AbortController();
      const { signal } = done;
      const events = ["data", "end", "close"].map((event) => once(this.#input, event, { signal }));
      for (const event of events) event.catch(() => {});
      await Promise.race(events);
      done.abort();
    }
  }

  /** Reads on until there is one with this member. */
  async until(member: string, value?: unknown): Promise<Message> {
    for (;;) {
      const message = await this.next();
      if (!message) throw new Error(`ended before there was ${member}: ${this.text}`);
      if (member in message && (value === undefined || message[member] === value)) return message;
    }
  }

  async execute(name: string, args?: object): Promise<Message> {
    this.send({ execute: name, ...(args && { arguments: args }), id: name });
    return this.until("id", name);
  }

  async negotiate(): Promise<this> {
    await this.until("QMP");
    await this.execute("qmp_capabilities");
    return this;
  }
}

export class Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  /** On its stdio. */
  readonly talk: Talk;

  constructor(command: readonly string[], args: readonly string[], cwd: string) {
    const [program, ...before] = command;
    this.child = spawn(program!, [...before, ...args], { cwd, stdio: "pipe" });
    let stderr = "";
    this.child.stderr!.setEncoding("utf8").on("data", (piece: string) => {
      stderr += piece;
    });
    this.talk = new Talk(this.child.stdout!, this.child.stdin!);
    this.ended = new Promise((resolve, reject) => {
      this.child.once("error", reject);
      this.child.once("close", (status, signal) => resolve({ status, signal, stderr }));
    });
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }
}

/** Tries until somebody listens there. */
export async function connectTo(path: string): Promise<Socket> {
  for (;;) {
    const socket = createConnection({ path });
    const isThere = await new Promise<boolean>((resolve) => {
      socket.once("connect", () => resolve(true));
      socket.once("error", () => resolve(false));
    });
    if (isThere) return socket;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export async function talkTo(path: string): Promise<Talk> {
  const socket = await connectTo(path);
  return new Talk(socket, socket);
}
