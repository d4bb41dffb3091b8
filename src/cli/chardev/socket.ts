/**
 * A unix or TCP socket: as a server, which takes one client at a time and lets the others wait, or
 * as a client of a program that listens.
 *
 *     socket,path=monitor.sock,server=on,wait=off
 *     socket,host=127.0.0.1,port=4444,server=on
 *     socket,path=of-libvirt.sock,reconnect=1
 */

import { createConnection, createServer, type Server, type Socket } from "node:net";
import { Bell } from "../../base/bell.ts";
import { BlockError } from "../../base/errors.ts";
import type { Opts } from "../../base/opts.ts";
import { removeStaleSocket } from "../../engine/node-listen.ts";
import { unixAddress } from "../../qmp/socket-address.ts";
import {
  type Chardev,
  type ChardevBackend,
  type ChardevClient,
  type ChardevHost,
  type Frontend,
  systemError,
} from "./chardev.ts";

/** Clients that may wait for their turn; more are turned away. */
const WAITING_CLIENTS_MAX = 16;

type Address =
  | { readonly type: "unix"; readonly path: string }
  | { readonly type: "tcp"; readonly host: string; readonly port: number };

export const socketBackend: ChardevBackend = {
  name: "socket",
  async open({ opts, host }) {
    const address = takeAddress(opts);
    const isServer = opts.takeBoolean("server") ?? false;
    const wait = opts.takeBoolean("wait");
    const reconnectMs = takeReconnect(opts);
    refuseWhatIsNotHere(opts);
    opts.finish();
    if (isServer && reconnectMs > 0) {
      throw new BlockError("EINVAL", "'reconnect' is for a client, not for a server");
    }
    if (!isServer && wait) throw new BlockError("EINVAL", "'wait' is for a server");
    if (!isServer) return SocketClient.open(address, reconnectMs, host);
    const server = await SocketServer.open(address, host.signal);
    if (wait ?? true) {
      host.note(`waiting for a connection on ${server.filename}`);
      await server.firstClient().catch(async (error) => {
        await server.close();
        throw error;
      });
    }
    return server;
  },
};

function takeAddress(opts: Opts): Address {
  const path = opts.take("path");
  const host = opts.take("host");
  const port = opts.take("port");
  if (opts.take("fd") !== undefined) {
    throw new BlockError("ENOTSUP", "'fd' is not supported: give 'path', or 'host' and 'port'");
  }
  if (opts.takeBoolean("abstract")) {
    throw new BlockError(
      "ENOTSUP",
      "'abstract' is not supported: give a 'path' in the file system",
    );
  }
  opts.takeBoolean("tight");
  if ((path === undefined) === (host === undefined && port === undefined)) {
    throw new BlockError("EINVAL", "Expected either 'path', or 'host' and 'port'");
  }
  if (path !== undefined) {
    if (path === "") throw new BlockError("EINVAL", "'path' must not be empty");
    return unixAddress(path);
  }
  if (port === undefined) throw new BlockError("EINVAL", "Parameter 'port' is missing");
  if (!/^[0-9]{1,5}$/.test(port) || Number(port) > 65535) {
    throw new BlockError("EINVAL", `Parameter 'port' expects a port number; got '${port}'`);
  }
  return { type: "tcp", host: host ?? "", port: Number(port) };
}

/** In milliseconds; 0 is never. */
function takeReconnect(opts: Opts): number {
  const seconds = opts.takeNumber("reconnect");
  const ms = opts.takeNumber("reconnect-ms");
  if (seconds !== undefined && ms !== undefined) {
    throw new BlockError("EINVAL", "'reconnect' and 'reconnect-ms' exclude each other");
  }
  return ms ?? (seconds ?? 0) * 1000;
}

function refuseWhatIsNotHere(opts: Opts): void {
  // Every message is one write, and goes out at once in any case.
  for (const harmless of ["delay", "nodelay", "ipv4", "ipv6"]) opts.takeBoolean(harmless);
  for (const member of ["telnet", "tn3270", "websocket"]) {
    if (opts.takeBoolean(member)) throw new BlockError("ENOTSUP", `'${member}' is not supported`);
  }
  for (const member of ["tls-creds", "tls-authz", "mux", "logfile", "to"]) {
    const value = opts.take(member);
    if (value !== undefined && value !== "off") {
      throw new BlockError("ENOTSUP", `'${member}' is not supported`);
    }
  }
}

function describe(address: Address, server: boolean): string {
  const where =
    address.type === "unix" ? `unix:${address.path}` : `tcp:${address.host}:${address.port}`;
  return server ? `${where},server=on` : where;
}

class SocketServer implements Chardev {
  readonly #server: Server;
  readonly #address: Address;
  readonly #signal: AbortSignal;
  readonly #waiting: Socket[] = [];
  readonly #changed = new Bell();
  #current: Socket | null = null;
  #isClosed = false;

  static async open(address: Address, signal: AbortSignal): Promise<SocketServer> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true });
    const shown = describe(address, false);
    if (address.type === "unix") await removeStaleSocket(address.path);
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error) => reject(systemError(error, `Listening on ${shown}`)));
      server.listen(address.type === "unix" ? { path: address.path } : { ...address }, resolve);
    });
    const bound = server.address();
    const actual =
      address.type === "tcp" && typeof bound === "object" && bound
        ? { ...address, host: address.host || bound.address, port: bound.port }
        : address;
    return new SocketServer(server, actual, signal);
  }

  constructor(server: Server, address: Address, signal: AbortSignal) {
    this.#server = server;
    this.#address = address;
    this.#signal = signal;
    server.removeAllListeners("error");
    // Of one connection that could not be taken; the next one may be.
    server.on("error", () => {});
    server.on("connection", (socket) => this.#take(socket));
  }

  get filename(): string {
    const shown = describe(this.#address, true);
    return this.#current ? shown : `disconnected:${shown}`;
  }

  async firstClient(): Promise<void> {
    while (this.#waiting.length === 0) await this.#changed.rung(this.#signal);
  }

  serve(frontend: Frontend): void {
    void this.#serveAll(frontend);
  }

  async #serveAll(frontend: Frontend): Promise<void> {
    while (!this.#isClosed) {
      const socket = this.#waiting.shift();
      if (!socket) {
        await this.#changed.rung();
        continue;
      }
      this.#current = socket;
      await frontend(clientOf(socket));
      socket.destroy();
      this.#current = null;
    }
  }

  #take(socket: Socket): void {
    // It says so by closing, too.
    socket.on("error", () => {});
    if (this.#isClosed || this.#waiting.length >= WAITING_CLIENTS_MAX) {
      socket.destroy();
      return;
    }
    this.#waiting.push(socket);
    this.#changed.ring();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const socket of this.#waiting.splice(0)) socket.destroy();
    this.#current?.destroy();
    this.#changed.ring();
    // Node takes the socket's name out of the file system.
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

class SocketClient implements Chardev {
  readonly #address: Address;
  readonly #reconnectMs: number;
  readonly #host: ChardevHost;
  #socket: Socket | null;
  #isClosed = false;

  /** @throws BlockError if nobody listens, unless it is to try again */
  static async open(
    address: Address,
    reconnectMs: number,
    host: ChardevHost,
  ): Promise<SocketClient> {
    const socket = reconnectMs > 0 ? null : await connect(address, host.signal);
    return new SocketClient(address, reconnectMs, host, socket);
  }

  constructor(address: Address, reconnectMs: number, host: ChardevHost, socket: Socket | null) {
    this.#address = address;
    this.#reconnectMs = reconnectMs;
    this.#host = host;
    this.#socket = socket;
  }

  get filename(): string {
    const shown = describe(this.#address, false);
    return this.#socket ? shown : `disconnected:${shown}`;
  }

  serve(frontend: Frontend): void {
    void this.#serveAll(frontend);
  }

  async #serveAll(frontend: Frontend): Promise<void> {
    while (!this.#isClosed) {
      this.#socket ??= await this.#tryToConnect();
      if (this.#socket) await frontend(clientOf(this.#socket));
      this.#socket?.destroy();
      this.#socket = null;
      if (this.#reconnectMs === 0) return;
      await this.#host.sleep(this.#reconnectMs).catch(() => {
        this.#isClosed = true;
      });
    }
  }

  async #tryToConnect(): Promise<Socket | null> {
    try {
      return await connect(this.#address, this.#host.signal);
    } catch (error) {
      if (error instanceof BlockError) return null;
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#socket?.destroy();
  }
}

function connect(address: Address, signal: AbortSignal): Promise<Socket> {
  const attempted = `Connecting to ${describe(address, false)}`;
  return new Promise((resolve, reject) => {
    const target = address.type === "unix" ? { path: address.path } : { ...address, noDelay: true };
    const socket = createConnection({ ...target, allowHalfOpen: true });
    const cancel = () => {
      socket.destroy();
      reject(new BlockError("ECANCELED", "Operation canceled"));
    };
    signal.addEventListener("abort", cancel, { once: true });
    socket.once("connect", () => {
      signal.removeEventListener("abort", cancel);
      resolve(socket.pause());
    });
    socket.on("error", (error) => {
      signal.removeEventListener("abort", cancel);
      reject(systemError(error, attempted));
    });
  });
}

function clientOf(socket: Socket): ChardevClient {
  return { input: socket, output: socket, destroy: () => void socket.destroy() };
}
