/**
 * Sockets, on Node: listens at an address, and hands connections over as channels. Both directions
 * hold back: a socket is not read from while enough lies here that nobody has taken, and a write
 * resolves when the socket takes more.
 */

import { lstat, unlink } from "node:fs/promises";
import { createServer, type ListenOptions, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import { KiB } from "../base/bytes.ts";
import type { ByteChannel, Listener } from "../base/channel.ts";
import { BlockError, type Errno } from "../base/errors.ts";
import type { Address } from "../qmp/socket-address.ts";

/** What has come in and has not been read; with more the socket waits. */
const UNREAD_BYTES_MAX = 256 * KiB;

/** @throws BlockError if it cannot be listened at: taken, not allowed, not there */
export async function listen(
  address: Address,
  onConnection: (channel: ByteChannel) => void,
): Promise<Listener> {
  if (address.type === "unix") {
    if (address.path === "") throw new BlockError("EINVAL", "A socket's path cannot be empty");
    await removeStaleSocket(address.path);
    return listenAt({ path: address.path }, `socket '${address.path}'`, onConnection);
  }
  const { host, port, to = port, family } = address;
  for (let at = port; ; at++) {
    const options = { port: at, ...hostOf(host, family) };
    try {
      return await listenAt(options, `'${host}:${at}'`, onConnection);
    } catch (error) {
      if (!(error instanceof BlockError) || error.errno !== "EBUSY" || at >= to) throw error;
    }
  }
}

function hostOf(host: string, family: 4 | 6 | undefined): Pick<ListenOptions, "host" | "ipv6Only"> {
  if (family === 6) return { host: host || "::", ipv6Only: true };
  if (family === 4) return { host: host || "0.0.0.0" };
  return host ? { host } : {};
}

/**
 * What a server that is gone has left; anything but a socket is not ours to remove.
 *
 * @throws BlockError ENOENT if there is no folder for it, of which Node says that it is not permitted
 */
export async function removeStaleSocket(path: string): Promise<void> {
  try {
    await lstat(dirname(path));
  } catch (error) {
    throw socketError(error, `Looking for the folder of the socket '${path}'`);
  }
  try {
    if ((await lstat(path)).isSocket()) await unlink(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return;
    throw socketError(error, `Removing the old socket '${path}'`);
  }
}

function listenAt(
  options: ListenOptions,
  name: string,
  onConnection: (channel: ByteChannel) => void,
): Promise<Listener> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) =>
    onConnection(new SocketChannel(socket)),
  );
  return new Promise((resolve, reject) => {
    server.once("error", (error) => reject(socketError(error, `Listening at ${name}`)));
    server.listen(options, () => {
      server.removeAllListeners("error");
      // Such as too many open files: whoever wanted to connect sees it, too.
      server.on("error", () => {});
      resolve({ close: () => closeServer(server) });
    });
  });
}

/** Node removes a unix socket's path. Connections stay, so its callback is not waited for. */
async function closeServer(server: Server): Promise<void> {
  server.close();
}

export class SocketChannel implements ByteChannel {
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #unread: Uint8Array[] = [];
  #unreadBytes = 0;
  /** Nothing more will come in. */
  #hasEnded = false;
  #isFinishing = false;
  #isGathering = false;
  /** Wakes a read(). */
  #onRead: (() => void) | null = null;
  /** Wake write()s. */
  #onDrain: (() => void)[] = [];
  #resolveClosed: () => void = () => {};

  constructor(socket: Socket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    socket.on("data", (piece) => this.#receive(piece));
    socket.on("end", () => this.#end());
    // 'close' follows.
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#end();
      this.#resolveClosed();
      this.#drained();
    });
    socket.on("drain", () => this.#drained());
  }

  async read(): Promise<Uint8Array | null> {
    while (this.#unread.length === 0) {
      if (this.#hasEnded) return null;
      await new Promise<void>((resolve) => {
        this.#onRead = resolve;
      });
    }
    const piece = this.#unread.shift() ?? null;
    this.#unreadBytes -= piece?.length ?? 0;
    if (this.#unreadBytes < UNREAD_BYTES_MAX && this.#socket.isPaused()) this.#socket.resume();
    if (this.#hasEnded && this.#unread.length === 0) this.#resolveClosed();
    return piece;
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (!this.#socket.writable) throw gone();
    this.#gather();
    if (this.#socket.write(bytes)) return;
    await new Promise<void>((resolve) => {
      this.#onDrain.push(resolve);
    });
    if (this.#socket.destroyed) throw gone();
  }

  /** What is written before anybody else gets a turn goes out in one piece. */
  #gather(): void {
    if (this.#isGathering) return;
    this.#isGathering = true;
    this.#socket.cork();
    process.nextTick(() => {
      this.#isGathering = false;
      this.#socket.uncork();
    });
  }

  finish(): void {
    this.#isFinishing = true;
    if (this.#hasEnded || !this.#socket.writable) this.#socket.destroySoon();
    else this.#socket.end(() => this.#socket.destroy());
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #receive(piece: Uint8Array): void {
    this.#unread.push(piece);
    this.#unreadBytes += piece.length;
    if (this.#unreadBytes >= UNREAD_BYTES_MAX) this.#socket.pause();
    this.#wake();
  }

  #end(): void {
    this.#hasEnded = true;
    if (this.#isFinishing) this.#socket.destroySoon();
    if (this.#unread.length === 0) this.#resolveClosed();
    this.#wake();
  }

  #wake(): void {
    this.#onRead?.();
    this.#onRead = null;
  }

  #drained(): void {
    for (const resolve of this.#onDrain.splice(0)) resolve();
  }
}

const ERRNOS: Readonly<Record<string, Errno>> = {
  EACCES: "EACCES",
  EADDRINUSE: "EBUSY",
  EADDRNOTAVAIL: "EINVAL",
  EINVAL: "EINVAL",
  ENOENT: "ENOENT",
  ENOTDIR: "ENOENT",
  ENOTFOUND: "ENOENT",
  EPERM: "EPERM",
};

function socketError(error: unknown, attempted: string): BlockError {
  const code = codeOf(error);
  if (code === undefined || !(error instanceof Error)) throw error;
  return new BlockError(ERRNOS[code] ?? "EIO", `${attempted} failed: ${error.message}`, {
    cause: error,
  });
}

function codeOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

function gone(): BlockError {
  return new BlockError("EIO", "The connection is gone");
}
