/**
 * One program at a time has a file. Node cannot lock files; but a socket that is listened on is the kernel's word that
 * somebody is there, whatever becomes of him: killed, he listens no more. So whoever wants the file listens on a
 * socket of his own beside it, and then looks at those of the others:
 *
 *   FILE.lock.K3FQ…   "holds 4711"    refused: tell who it is
 *   FILE.lock.7Z0B…   "wants 4712"    of two who want, the lesser name stays, the other one steps back for a while
 *   FILE.lock.A1XM…   nobody there    killed: removed
 *   all looked at, none left          it is ours
 *   .FILE.lock.A1XM…  nobody there    killed before it was shown: removed by the next who has the file
 *
 * A socket gets its name when somebody listens already, and no name is used twice: one that nobody answers for never
 * will be again, so removing it takes nothing from anybody. Of two who are there at once each has its name before
 * it looks, so at least one sees the other. A holder who is stopped is one still: the kernel takes calls for him.
 *
 * Programs on different machines that share a folder are not seen.
 */

import { type FileHandle, open, readdir, rename, rm } from "node:fs/promises";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { basename, dirname, join } from "node:path";
import { type Clock, sleep } from "../base/clock.ts";
import { BlockError } from "../base/errors.ts";
import { systemRandom } from "../base/random.ts";
import { storeError } from "../drivers/protocol/errors.ts";

/** What a socket's path may have. Longer ones are cut off without a word. */
const PATH_BYTES_MAX = 100;

/** How long whoever is there may take to say who he is. */
const ANSWER_MS = 1000;

/** How long several who come at once may take to settle it. */
const SETTLE_MS = 10_000;
const STEP_BACK_MS = 50;

/** Who is at a socket's other end. */
interface Answer {
  readonly name: string;
  readonly state: "holds" | "wants" | "gone";
  readonly who: string;
}

export class FileLock {
  readonly #clock: Clock;
  readonly #attempted: string;
  readonly #folder: FileHandle;
  /** Where sockets are reached: a path to one is short, however deep the folder lies. */
  readonly #at: string;
  /** Names of sockets begin with it. */
  readonly #prefix: string;
  readonly #rename: typeof rename;
  #own: { readonly name: string; readonly server: Server } | null = null;
  /** Who is being told. One that has been stopped amid that keeps nobody waiting. */
  readonly #askers = new Set<Socket>();
  #state: "holds" | "wants" = "wants";

  /**
   * @param path of the file, which need not be there
   * @param what it is, for texts: "the journal 'journal.json'"
   * @param show renames
   * @throws BlockError EBUSY if another one has it; what the file system says
   */
  static async take(
    path: string,
    what: string,
    clock: Clock,
    show: typeof rename = rename,
  ): Promise<FileLock> {
    const attempted = `Taking ${what}`;
    try {
      const folder = await open(dirname(path));
      const lock = new FileLock({ path, attempted, clock, folder, show });
      try {
        await lock.#take();
        return lock;
      } catch (error) {
        await lock.release();
        throw error;
      }
    } catch (error) {
      throw storeError(error, attempted);
    }
  }

  private constructor(init: {
    readonly path: string;
    readonly attempted: string;
    readonly clock: Clock;
    readonly folder: FileHandle;
    readonly show: typeof rename;
  }) {
    const { path, attempted, clock, folder, show } = init;
    this.#rename = show;
    this.#clock = clock;
    this.#attempted = attempted;
    this.#folder = folder;
    this.#at = process.platform === "linux" ? `/proc/self/fd/${folder.fd}` : dirname(path);
    this.#prefix = `${basename(path)}.lock.`;
  }

  /** Lets go of it. @throws BlockError what the file system says */
  async release(): Promise<void> {
    try {
      await this.#stepBack();
      await this.#folder.close();
    } catch (error) {
      throw storeError(error, "Letting go of a lock");
    }
  }

  async #take(): Promise<void> {
    const end = this.#clock.now() + SETTLE_MS;
    do {
      if (!this.#own && !(await this.#appear())) continue;
      const others = await this.#askAll(this.#prefix);
      if (others.length === 0) {
        this.#state = "holds";
        // Those who are about to show themselves are left alone.
        await this.#askAll(`.${this.#prefix}`);
        return;
      }
      const holder = others.find(({ state }) => state === "holds");
      if (holder) {
        const why = `${holder.who} has it, and it is for one at a time. End that one first`;
        throw new BlockError("EBUSY", `${this.#attempted} failed: ${why}`);
      }
      const mine = this.#own!.name;
      if (others.some(({ name }) => name < mine)) await this.#stepBack();
      await sleep(this.#clock, STEP_BACK_MS);
    } while (this.#clock.now() < end);
    throw new BlockError("EBUSY", `${this.#attempted} failed: others want it at the same time`);
  }

  /**
   * Listens under a name that nobody takes for one, and then shows it.
   *
   * @returns false if somebody has taken it for a leftover: he came between the name and the listening
   */
  async #appear(): Promise<boolean> {
    const id = systemRandom();
    const letters = Array.from({ length: 12 }, () => id.below(36).toString(36));
    const name = `${this.#prefix}${letters.join("")}`;
    const hidden = `.${name}`;
    const server = createServer((asker) => {
      // He may have left.
      asker.on("error", () => asker.destroy());
      asker.on("close", () => this.#askers.delete(asker));
      this.#askers.add(asker);
      asker.end(`${this.#state} process ${process.pid}\n`);
    });
    // Nobody stays for its sake.
    server.unref();
    const path = this.#pathOf(hidden);
    await new Promise<void>((resolve, reject) => {
      // Later on it may fail to take a call; the kernel has, which is what counts.
      server.on("error", reject);
      server.listen(path, resolve);
    });
    this.#own = { name, server };
    try {
      await this.#rename(path, this.#pathOf(name));
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      await this.#stepBack();
      return false;
    }
  }

  async #stepBack(): Promise<void> {
    if (!this.#own) return;
    const { name, server } = this.#own;
    this.#own = null;
    await rm(this.#pathOf(name), { force: true });
    const closed = new Promise((resolve) => server.close(resolve));
    for (const asker of this.#askers) asker.destroy();
    await closed;
  }

  /** @returns the others who are there, by names that begin so; what nobody answers for is removed */
  async #askAll(prefix: string): Promise<readonly Answer[]> {
    // A file of such a name is somebody's: no socket, and none of ours.
    const found = await readdir(this.#at, { withFileTypes: true });
    const names = found.filter((entry) => entry.isSocket()).map(({ name }) => name);
    const others = names.filter((name) => name.startsWith(prefix) && name !== this.#own!.name);
    const answers = await Promise.all(others.map((name) => this.#ask(name)));
    for (const { name, state } of answers) {
      if (state === "gone") await rm(this.#pathOf(name), { force: true });
    }
    return answers.filter(({ state }) => state !== "gone");
  }

  #ask(name: string): Promise<Answer> {
    return new Promise((resolve) => {
      const socket = createConnection(this.#pathOf(name));
      const say = (state: Answer["state"], who = "") => {
        patience.cancel();
        socket.destroy();
        resolve({ name, state, who });
      };
      const patience = this.#clock.setTimer(ANSWER_MS, () => {
        say("holds", "a process that does not answer");
      });
      let text = "";
      socket.setEncoding("utf8");
      socket.on("data", (piece: string) => {
        text += piece;
        const [, state, who] = /^(holds|wants) (process \d+)\n/.exec(text) ?? [];
        if (state) say(state as "holds" | "wants", who);
      });
      socket.on("end", () => say("wants"));
      socket.on("error", ({ code = "" }: NodeJS.ErrnoException) => {
        if (code === "ECONNREFUSED" || code === "ENOENT") say("gone");
        // He goes just now: look again.
        else if (code === "ECONNRESET" || code === "EPIPE") say("wants");
        else say("holds", `a process that cannot be asked (${code})`);
      });
    });
  }

  /** @throws BlockError EINVAL */
  #pathOf(name: string): string {
    const path = join(this.#at, name);
    if (Buffer.byteLength(path) <= PATH_BYTES_MAX) return path;
    throw new BlockError("EINVAL", `${this.#attempted} failed: its name is too long`);
  }
}
