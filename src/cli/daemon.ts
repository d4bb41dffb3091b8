/**
 * `blocktab daemon`: one engine, set up by options as qemu-storage-daemon is, until somebody ends it.
 *
 *   options ──▶ commands, monitors ──▶ pidfile ──▶ (serves) ──▶ quit, SIGTERM, SIGINT, SIGHUP
 *                                                                     │
 *      exit status ◀── pidfile, sockets go ◀── jobs cancelled, exports removed, nodes closed
 *
 * Each option is carried out as the QMP command that it stands for, so every check is there once.
 */

import { setMaxListeners } from "node:events";
import { resolve } from "node:path";
import * as v from "valibot";
import { check } from "../base/check.ts";
import { type Clock, SystemClock, sleep } from "../base/clock.ts";
import { BlockError } from "../base/errors.ts";
import type { Given } from "../base/getopt.ts";
import type { Engine } from "../engine/engine.ts";
import { createNodeEngine } from "../engine/node.ts";
import { openFileJournal } from "../engine/node-journal.ts";
import type { RecoveryInfo } from "../qmp/commands/journal.ts";
import type { BlockDeviceInfo } from "../qmp/types.ts";
import { VERSION } from "../qmp/version.ts";
import { nbdServerSchema, nestAddress, parseArguments } from "./arguments.ts";
import { Chardevs } from "./chardev/index.ts";
import { hostCommands } from "./commands.ts";
import { isInBackground, leaveParent, runInBackground, say } from "./daemonize.ts";
import { helpText, type OptionName, parseCommandLine } from "./options.ts";
import { Pidfile } from "./pidfile.ts";
import { QmpStream } from "./qmp-stream.ts";
import { asksForPoints, POINT_LIST, TraceLog } from "./trace.ts";

/** MonitorOptions (QEMU: qapi/control.json). */
const monitorOptions = v.strictObject({
  chardev: v.string(),
  mode: v.optional(v.picklist(["control"])),
  pretty: v.optional(v.boolean()),
});

/** On one job's signal: each of a backup's 64 copies listens to it. Node warns of a leak past 10. */
const LISTENERS_MAX = 256;

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** @returns the exit status, when all has ended */
export async function daemon(words: readonly string[]): Promise<number> {
  setMaxListeners(LISTENERS_MAX);
  try {
    const given = parseCommandLine(words);
    const last = given.at(-1)?.name;
    if (last === "help") return print(helpText());
    if (last === "version") return print(`${versionText()}\n`);
    if (given.some(({ name, value }) => name === "trace" && asksForPoints(value))) {
      return print(POINT_LIST);
    }
    const isToLeave = given.some(({ name }) => name === "daemonize");
    if (isToLeave && !isInBackground()) return await runInBackground();
    return await new Daemon(isToLeave).run(given);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    await note(error.message);
    return 1;
  }
}

/** The file of the journal, which is opened before anything else. @throws BlockError EINVAL */
function journalOf(given: readonly Given<OptionName>[]): string | null {
  const files = given.filter(({ name }) => name === "journal");
  if (files.length > 1) throw new BlockError("EINVAL", "There is one --journal at most");
  return files[0]?.value ?? null;
}

function print(text: string): Promise<number> {
  return new Promise((resolve) => process.stdout.write(text, () => resolve(0)));
}

function versionText(): string {
  const { major, minor } = VERSION.qemu;
  return `${VERSION.package}, as qemu-storage-daemon ${major}.${minor}`;
}

/** One line for people. */
function note(text: string): Promise<void> {
  return say(`blocktab daemon: ${text}\n`);
}

class Daemon {
  readonly #clock: Clock = new SystemClock();
  readonly #ending = new AbortController();
  readonly #streams = new Set<QmpStream>();
  readonly #traceLog = new TraceLog(this.#clock, (text) => void note(text));
  readonly #chardevs: Chardevs;
  readonly #daemonized: boolean;
  #engine!: Engine;
  #bug: BlockError | null = null;
  /** Settles when people have been told of it. */
  #lastWords: Promise<void> = Promise.resolve();
  #served!: (isWell: boolean) => void;
  /** Whether all options have been carried out: nobody is answered before, as with QEMU. */
  readonly #isServing = new Promise<boolean>((resolve) => {
    this.#served = resolve;
  });
  /** What the journal has brought back: "node disk". */
  readonly #recovered = new Set<string>();
  /** There was something on record, and the options have not been carried out yet: it is for the next daemon as it is. */
  #isRecordToStay = false;
  #pidfilePath: string | null = null;
  #pidfile: Pidfile | null = null;

  /** @param daemonized this is the process in the background */
  constructor(daemonized: boolean) {
    this.#daemonized = daemonized;
    this.#chardevs = new Chardevs({
      daemonized,
      note: (text) => void note(text),
      signal: this.#ending.signal,
      sleep: (ms) => sleep(this.#clock, ms, this.#ending.signal),
    });
  }

  async run(given: readonly Given<OptionName>[]): Promise<number> {
    const journal = journalOf(given);
    this.#engine = await createNodeEngine({
      ...(journal !== null && { journal: await openFileJournal(journal, this.#clock) }),
      clock: this.#clock,
      trace: this.#traceLog.trace,
      commands: hostCommands(this.#chardevs, () => this.#endSoon()),
      onStopped: (why) => this.#stopped(why),
    });
    for (const signal of SIGNALS) process.on(signal, () => this.#ending.abort());
    process.on("uncaughtException", (error) => this.#engine.stop(error));
    // Somebody has ended the parent, and with it what it has begun.
    const orphaned = () => this.#ending.abort();
    process.once("disconnect", orphaned);
    // Node ends a process in which nothing is left to wait for, such as when the last client has gone.
    const awake = this.#clock.setTimer(Number.MAX_SAFE_INTEGER, () => {});
    let isWell = true;
    try {
      await this.#setUp(given);
      this.#isRecordToStay = false;
      this.#served(true);
      process.off("disconnect", orphaned);
      if (this.#daemonized) await leaveParent();
      await this.#ended();
    } catch (error) {
      if (error instanceof BlockError) await note(error.message);
      else this.#engine.stop(error);
      isWell = false;
      this.#served(false);
    }
    if (!(await this.#shutDown())) isWell = false;
    awake.cancel();
    return isWell ? 0 : 1;
  }

  async #setUp(given: readonly Given<OptionName>[]): Promise<void> {
    for (const { name, value, shown } of given) {
      if (this.#ending.signal.aborted) return;
      try {
        await this.#carryOut(name, value);
      } catch (error) {
        if (this.#ending.signal.aborted) return;
        throw error instanceof BlockError ? error.prepend(shown) : error;
      }
    }
    if (this.#pidfilePath !== null) this.#pidfile = Pidfile.write(this.#pidfilePath);
  }

  async #carryOut(name: OptionName, value: string): Promise<void> {
    switch (name) {
      case "blockdev":
        return this.#execute("blockdev-add", value, "driver", "node");
      case "object":
        return this.#execute("object-add", value, "qom-type", "object");
      case "export":
        return this.#execute("block-export-add", value, "type", "export");
      case "nbd-server":
        return this.#startNbdServer(value);
      case "journal":
        return this.#recover();
      case "chardev":
        return this.#chardevs.add(value);
      case "monitor":
        return this.#addMonitor(value);
      case "trace":
        return this.#traceLog.add(value);
      case "pidfile":
        this.#pidfilePath = value;
        return;
    }
  }

  /** What the journal has brought back already is left as it is. */
  async #execute(command: string, value: string, implied: string, kind: string): Promise<void> {
    const schema = this.#engine.argumentSchema(command);
    const args = parseArguments(value, implied, schema);
    const name = kind === "node" ? args["node-name"] : args["id"];
    if (!this.#recovered.has(`${kind} ${name}`)) await this.#engine.execute(command, args);
    else if (kind === "node") await this.#tellOtherFile(args);
  }

  /** It may have been reopened since the last daemon was told of it; or a name has been put right in vain. */
  async #tellOtherFile(args: Readonly<Record<string, unknown>>): Promise<void> {
    const { filename } = { ...args, ...(args["file"] as object | undefined) } as {
      filename?: unknown;
    };
    const nodes = await this.#engine.execute("query-named-block-nodes", { flat: true });
    const node = (nodes as BlockDeviceInfo[]).find((one) => one["node-name"] === args["node-name"]);
    if (typeof filename !== "string" || !node || resolve(filename) === resolve(node.file)) return;
    await note(
      `journal: node '${node["node-name"]}' is on record with '${node.file}' and stays so, though --blockdev says ` +
        `'${filename}'. blockdev-reopen changes that, or a journal of its own for each`,
    );
  }

  async #recover(): Promise<void> {
    await this.#engine.recover();
    const told = await this.#engine.execute("x-query-recovery", {});
    this.#isRecordToStay = (told as readonly RecoveryInfo[]).length > 0;
    for (const { kind, name, outcome, text } of told as readonly RecoveryInfo[]) {
      if (outcome === "continued") this.#recovered.add(`${kind} ${name}`);
      else await note(`journal: ${kind} '${name}' (${outcome}): ${text}`);
    }
  }

  async #startNbdServer(value: string): Promise<void> {
    const args = parseArguments(value, null, nbdServerSchema(this.#engine));
    await this.#engine.execute("nbd-server-start", nestAddress(args));
  }

  #addMonitor(value: string): void {
    const args = parseArguments(value, "chardev", monitorOptions);
    const { chardev, pretty = false } = check(monitorOptions, args);
    this.#chardevs.serve(chardev, async (client) => {
      if (!(await this.#isServing)) return;
      const stream = new QmpStream({ engine: this.#engine, client, clock: this.#clock, pretty });
      this.#streams.add(stream);
      await stream.gone;
      this.#streams.delete(stream);
    });
  }

  /** On behalf of a command, which is answered when this resolves. */
  async #endSoon(): Promise<void> {
    // Replies to what was asked before may still wait for the journal.
    await this.#engine.told();
    for (const stream of this.#streams) stream.leave();
    void this.#clock.yield().then(() => this.#ending.abort());
  }

  #ended(): Promise<void> {
    const { signal } = this.#ending;
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
  }

  /** @returns whether all went well */
  async #shutDown(): Promise<boolean> {
    this.#ending.abort();
    for (const stream of this.#streams) stream.leave();
    const isWell = await this.#closeEngine();
    await Promise.all([...this.#streams].map((stream) => stream.end()));
    await this.#chardevs.close();
    this.#pidfile?.remove();
    this.#traceLog.close();
    await this.#lastWords;
    return isWell;
  }

  async #closeEngine(): Promise<boolean> {
    try {
      // Of an engine that has stopped, nobody knows whether what it holds is right.
      if (this.#bug) return false;
      await (this.#isRecordToStay ? this.#engine.suspend() : this.#engine.close());
    } catch (error) {
      if (!(error instanceof BlockError)) this.#engine.stop(error);
      else if (!this.#bug) await note(error.message);
      return false;
    }
    return !this.#bug;
  }

  #stopped(why: BlockError): void {
    this.#bug = why;
    const { cause } = why;
    // A journal that cannot be kept is no bug: where in the program that came out helps nobody.
    const more =
      cause instanceof BlockError
        ? ". When that is mended, the next one goes on from what is on record"
        : `\n${(cause instanceof Error ? cause : why).stack}`;
    this.#lastWords = note(`${why.message}${more}`);
    this.#ending.abort();
  }
}
