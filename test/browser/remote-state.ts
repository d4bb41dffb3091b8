/**
 * States that live in a dedicated worker, used from the page as if they were here: so that one
 * conformance suite runs over drivers that only work in a worker.
 *
 * The far side keeps all buffers in wasm memory, as the engine does, and fills them with rubbish
 * before each read.
 */

import { BlockError, type Errno } from "../../src/base/errors.ts";
import type { BlockDriver, BlockState } from "../../src/block/driver.ts";
import { storeWorld } from "../conformance/protocol.ts";

type Call =
  | { call: "open"; driver: string; options: object; readOnly: boolean }
  | { call: "create"; driver: string; options: object }
  | { call: "method"; state: number; name: string; data?: Uint8Array; numbers: number[] }
  | { call: "abort"; target: number };
type Request = Call & { id: number; aborted?: boolean };

interface Opened {
  readonly state: number;
  readonly limits: BlockState["limits"];
  readonly methods: readonly string[];
}

type Reply = { id: number; length?: number } & (
  | { value: unknown }
  | { errno: Errno; message: string }
  | { bug: string }
);

const METHODS = ["pread", "pwrite", "pwriteZeroes", "pdiscard", "storeStatus"];
const PLAIN_METHODS = ["truncate", "flush", "close"];

/** The page's side. */
export class RemoteDrivers {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, (reply: Reply) => void>();
  #lastId = 0;

  constructor(worker: Worker) {
    this.#worker = worker;
    worker.onmessage = ({ data }: MessageEvent<Reply>) => {
      this.#waiting.get(data.id)?.(data);
      this.#waiting.delete(data.id);
    };
  }

  async open(driver: string, options: object, readOnly: boolean): Promise<BlockState> {
    const reply = await this.#call({ call: "open", driver, options, readOnly });
    const { state, limits, methods } = reply.value as Opened;
    let length = reply.length!;
    const call = async (
      name: string,
      numbers: number[],
      signal?: AbortSignal,
      data?: Uint8Array,
    ): Promise<unknown> => {
      const asked: Call = { call: "method", state, name, numbers, ...(data && { data }) };
      const answer = await this.#call(asked, signal);
      length = answer.length ?? length;
      return answer.value;
    };
    const near: BlockState & Record<string, unknown> = {
      limits,
      getLength: () => length,
      async pread(buf, offset, { signal }) {
        buf.set((await call("pread", [buf.length, offset], signal)) as Uint8Array);
      },
      pwrite: (buf, offset, { signal }) =>
        call("pwrite", [offset], signal, buf.slice()) as Promise<void>,
      reopen: (readOnly) => call("reopen", [readOnly ? 1 : 0]) as Promise<void>,
    };
    for (const name of methods) {
      near[name] ??= (offset: number, bytes: number, options?: { signal?: AbortSignal }) =>
        call(name, [offset, bytes], options?.signal);
    }
    return near;
  }

  async create(driver: string, options: object): Promise<void> {
    await this.#call({ call: "create", driver, options });
  }

  /** Ends the worker without a word to the states in it, as a closed tab does. */
  terminate(): void {
    this.#worker.terminate();
  }

  async #call(call: Call, signal?: AbortSignal): Promise<{ value: unknown; length?: number }> {
    const id = ++this.#lastId;
    const abort = () => this.#worker.postMessage({ id: 0, call: "abort", target: id });
    signal?.addEventListener("abort", abort);
    const reply = await new Promise<Reply>((resolve) => {
      this.#waiting.set(id, resolve);
      const aborted = signal?.aborted ?? false;
      this.#worker.postMessage({ ...call, id, aborted } satisfies Request);
    });
    signal?.removeEventListener("abort", abort);
    if ("errno" in reply) throw new BlockError(reply.errno, reply.message);
    if ("bug" in reply) throw new Error(reply.bug);
    return reply;
  }
}

/** The worker's side: call once, at its top. */
export function serveDrivers(scope: DedicatedWorker, drivers: readonly BlockDriver[]): void {
  const world = storeWorld();
  const states: BlockState[] = [];
  const underWay = new Map<number, AbortController>();
  const arena = new Arena();

  async function answer(request: Request): Promise<{ value: unknown; length?: number }> {
    switch (request.call) {
      case "abort":
        underWay.get(request.target)?.abort();
        return { value: null };
      case "create":
        await driverOf(request.driver).create!({ world, options: request.options as never });
        return { value: null };
      case "open": {
        const state = await driverOf(request.driver).open({
          world,
          options: request.options as never,
          nodeName: "node",
          readOnly: request.readOnly,
          children: {},
        });
        const methods = [...METHODS, ...PLAIN_METHODS].filter((name) => name in state);
        const opened = { state: states.push(state) - 1, limits: state.limits, methods };
        return { value: opened, length: state.getLength!() };
      }
      case "method": {
        const controller = new AbortController();
        underWay.set(request.id, controller);
        if (request.aborted) controller.abort();
        const state = states[request.state]!;
        const value = await perform(state, request, controller.signal);
        return { value, ...(request.name !== "close" && { length: state.getLength!() }) };
      }
    }
  }

  function driverOf(name: string): BlockDriver {
    return drivers.find((driver) => driver.name === name)!;
  }

  async function perform(
    state: BlockState,
    { name, numbers, data }: Request & { call: "method" },
    signal: AbortSignal,
  ): Promise<unknown> {
    const [first, second] = numbers as [number, number];
    if (name === "pread") {
      return arena.lend(first, async (view) => {
        view.fill(0xee);
        await state.pread!(view, second, { signal });
        return view.slice();
      });
    }
    if (name === "pwrite") {
      return arena.lend(data!.length, async (view) => {
        view.set(data!);
        await state.pwrite!(view, first, { signal });
        view.fill(0xdd);
      });
    }
    if (name === "reopen") return state.reopen!(first === 1);
    const method = state[name as "pwriteZeroes"]!;
    if (PLAIN_METHODS.includes(name))
      return (method as (first: number) => unknown).call(state, first);
    return method.call(state, first, second, { signal });
  }

  scope.onmessage = async ({ data: request }: MessageEvent<Request>) => {
    let reply: Reply;
    try {
      reply = { id: request.id, ...(await answer(request)) };
    } catch (error) {
      if (error instanceof BlockError) {
        reply = { id: request.id, errno: error.errno, message: error.message };
      } else {
        reply = { id: request.id, bug: String((error as Error).stack ?? error) };
      }
    }
    underWay.delete(request.id);
    scope.postMessage(reply);
  };
}

/** What lib.dom has of a worker's global scope. */
export interface DedicatedWorker {
  onmessage: ((event: MessageEvent) => void) | null;
  postMessage(message: unknown): void;
}

/** Wasm memory, lent piece by piece; starts over when all of it has come back. */
class Arena {
  readonly #memory = new WebAssembly.Memory({ initial: 512 });
  #used = 0;
  #lent = 0;

  async lend<T>(bytes: number, use: (view: Uint8Array) => Promise<T>): Promise<T> {
    const view = new Uint8Array(this.#memory.buffer, this.#used, bytes);
    this.#used += bytes;
    this.#lent += 1;
    try {
      return await use(view);
    } finally {
      this.#lent -= 1;
      if (this.#lent === 0) this.#used = 0;
    }
  }
}
