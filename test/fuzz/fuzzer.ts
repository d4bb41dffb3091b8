/** What a fuzzer is: inputs that nobody would send, against an engine that must not mind. */

export interface FuzzOptions {
  /** How many inputs. */
  readonly count: number;
  /** The same seed and count give the same run. */
  readonly seed: number;
  /** Told now and then. */
  readonly onProgress?: (done: number) => void;
}

export interface FuzzReport {
  /** Of replies or the like, by kind: that it was about something. */
  readonly kinds: ReadonlyMap<string, number>;
  /** Bytes of memory in use after each batch, all garbage collected. */
  readonly heap: readonly number[];
}

export interface Fuzzer {
  /** Its option on the command line, and what it counts. */
  readonly name: string;
  readonly inputs: string;
  /** @throws FuzzError */
  run(options: FuzzOptions): Promise<FuzzReport>;
}

/** What an engine did not stand, and after which inputs. */
export class FuzzError extends Error {
  override readonly name = "FuzzError";
  readonly seed: number;
  /** Those since all was well, the last one last. */
  readonly inputs: readonly string[];

  constructor(what: string, seed: number, inputs: readonly string[], cause?: unknown) {
    super(`${what} (seed ${seed})`, { cause });
    this.seed = seed;
    this.inputs = inputs;
  }
}
