/**
 * Chance, as a parameter: nothing above this floor rolls dice on its own.
 *
 * The generator is sfc32 (Chris Doty-Humphrey's PractRand): 128 bits of state, fast in plain
 * numbers, good enough for names, tests and simulation. Not for keys.
 */

export interface Random {
  /** A whole number, 0 <= n < limit <= 2^32. */
  below(limit: number): number;
  /** Fills the buffer. */
  fill(buf: Uint8Array): void;
}

/** The same seed gives the same numbers, for ever. @param seed whole number, 0 .. 2^32-1 */
export function seededRandom(seed: number): Random {
  let a = 0x9e3779b9;
  let b = 0x243f6a88;
  let c = seed >>> 0;
  let counter = 1;

  function next(): number {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }
  // The first dozen outputs still show the seed.
  for (let i = 0; i < 12; i++) next();

  return {
    below: (limit) => Math.floor((next() / 2 ** 32) * limit),
    fill(buf) {
      for (let i = 0; i < buf.length; i++) buf[i] = next() >>> 24;
    },
  };
}

/** A generator that nobody can predict from the outside: for an engine, not for a test. */
export function systemRandom(): Random {
  return seededRandom(crypto.getRandomValues(new Uint32Array(1))[0]!);
}

/** Fills the buffer with what keys are made of: always from the machine, never from a seed. */
export function fillSecret(buf: Uint8Array<ArrayBuffer>): void {
  const most = 65536;
  for (let at = 0; at < buf.length; at += most) crypto.getRandomValues(buf.subarray(at, at + most));
}
