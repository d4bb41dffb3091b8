/** One script on one daemon, from an empty folder to what lies in it at the end. */

import { mkdtemp, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Daemon, DaemonProcess, type Message } from "./daemon.ts";
import type { ImageMaker } from "./images.ts";
import { Normaliser, renumbered } from "./normal.ts";
import type { Script } from "./script.ts";
import { PATIENCE, ScriptEnded, Talk } from "./talk.ts";
import type { Transcript } from "./transcript.ts";

/** For the test that the harness finds what is wrong: changes what the harness gets to see. */
export interface Meddling {
  /** What is heard instead of a message. */
  readonly hear?: (message: Message) => readonly Message[];
  /** Before the images are looked at. */
  readonly images?: (folder: string) => Promise<void>;
  /** Seconds that the script waits for whatever it waits for. */
  readonly patience?: number;
}

export async function runScript(
  script: Script,
  daemon: Daemon,
  images: ImageMaker,
  meddling: Meddling = {},
): Promise<Transcript> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), "blocktab-differential-")));
  let running: DaemonProcess | null = null;
  const talk = new Talk({
    folder,
    images,
    patience: meddling.patience ?? PATIENCE,
    normaliser: new Normaliser(folder, daemon.version !== null),
    start(hear) {
      const meddled = (message: Message | null) => {
        if (message === null || !meddling.hear) hear(message);
        else for (const other of meddling.hear(message)) hear(other);
      };
      const args = script.options.args ?? [];
      running = new DaemonProcess(daemon, { folder, args, hear: meddled });
      return running;
    },
  });
  try {
    if (!script.options.raw) await talk.negotiate();
    await script.run(talk);
    await talk.finish();
    await meddling.images?.(folder);
    return renumbered([...talk.entries, ...(await images.describe(folder))]);
  } catch (error) {
    if (!(error instanceof ScriptEnded)) throw error;
    return renumbered(talk.entries);
  } finally {
    await (running as DaemonProcess | null)?.kill();
    await rm(folder, { recursive: true, force: true });
  }
}
