/**
 * `blocktab img` for a page: qemu-img's command lines, on files that the page names.
 *
 *     const img = openImg();
 *     const { status, stderr } = await img.run(["convert", "-c", "-O", "qcow2", "in.raw", "out.qcow2"], {
 *       files: { "in.raw": pickedFile, "out.qcow2": { opfs: "disk.qcow2" } },
 *     });
 *
 * It runs in a dedicated worker of its own. What a command line gets wrong is said on stderr and by the
 * exit status, as by any command; what is thrown is a QmpError: the worker is gone, or broken.
 */

import type { ImgFile, ImgMemoryMessage, ImgReply, ImgRunMessage } from "./img-protocol.ts";
import { clientError, QmpError } from "./qmp-error.ts";

export type { ImgFile } from "./img-protocol.ts";

export interface ImgRunOptions {
  /** Every name that the words, or the images, may use. */
  readonly files?: Readonly<Record<string, ImgFile>>;
  /** Sees output as it comes: progress. */
  readonly onOutput?: (stream: "stdout" | "stderr", text: string) => void;
  /** Ends the run; it is waited for until all is closed. */
  readonly signal?: AbortSignal;
}

export interface ImgResult {
  /** As qemu-img's. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export function openImg(): ImgClient {
  return new ImgClient(
    new Worker(new URL("./img-worker.ts", import.meta.url), {
      type: "module",
      name: "blocktab-img",
    }),
  );
}

export class ImgClient {
  readonly #worker: Worker;
  readonly #waiting = new Set<(error: QmpError) => void>();
  #broken: QmpError | null = null;

  /** Use openImg(). */
  constructor(worker: Worker) {
    this.#worker = worker;
    const broken = (event: Event) => {
      const why = (event as Partial<ErrorEvent>).message || "it could not be loaded";
      this.#break(clientError("EIO", `The worker of img has crashed: ${why}`));
    };
    worker.addEventListener("error", broken);
    worker.addEventListener("messageerror", broken);
  }

  /**
   * @param argv the command line, from the subcommand on
   * @throws QmpError EIO if the worker has crashed or something in it is broken; ECANCELED after close()
   */
  async run(argv: readonly string[], options: ImgRunOptions = {}): Promise<ImgResult> {
    const { files = {}, onOutput, signal } = options;
    const said = { stdout: "", stderr: "" };
    const { port1, port2 } = new MessageChannel();
    const message: ImgRunMessage = { type: "img-run", argv, files, port: port2 };
    const cancel = () => port1.postMessage({ type: "cancel" });
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      const ended = this.#ask(port1, message, (stream, text) => {
        said[stream] += text;
        onOutput?.(stream, text);
      });
      if (signal?.aborted) cancel();
      const reply = await ended;
      return { status: reply.type === "end" ? reply.status : 1, ...said };
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** The bytes of what runs have left in memory. @throws QmpError ENOENT */
  async memoryFile(name: string): Promise<Blob> {
    const { port1, port2 } = new MessageChannel();
    const message: ImgMemoryMessage = { type: "img-memory", name, port: port2 };
    const reply = await this.#ask(port1, message, () => {});
    return reply.type === "blob" ? reply.blob : new Blob();
  }

  /** Ends the worker; what runs in it is cut off, as by a closed tab. */
  close(): void {
    this.#break(clientError("ECANCELED", "The worker of img has been closed"));
    this.#worker.terminate();
  }

  #ask(
    port: MessagePort,
    message: ImgRunMessage | ImgMemoryMessage,
    output: (stream: "stdout" | "stderr", text: string) => void,
  ): Promise<ImgReply> {
    return new Promise<ImgReply>((resolve, reject) => {
      if (this.#broken) throw this.#broken;
      this.#waiting.add(reject);
      const end = (settle: () => void) => {
        this.#waiting.delete(reject);
        port.close();
        settle();
      };
      port.onmessage = ({ data }: MessageEvent<ImgReply>) => {
        if (data.type === "output") output(data.stream, data.text);
        else if (data.type === "failed") end(() => reject(new QmpError(data.error)));
        else end(() => resolve(data));
      };
      this.#worker.postMessage(message, [message.port]);
    });
  }

  #break(error: QmpError): void {
    this.#broken ??= error;
    for (const reject of this.#waiting) reject(this.#broken);
    this.#waiting.clear();
  }
}
