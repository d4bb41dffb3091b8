/**
 * A connection as bytes in both directions, whatever carries it: a socket, or two ends in memory.
 *
 * Both ways hold back: what nobody takes from read() is not fetched without end, and a write() that
 * has not resolved says that the other side does not keep up.
 */

export interface ByteChannel {
  /**
   * The next bytes, at least one; they are the caller's to keep. null at the end: the other side has
   * finished sending, or the connection is gone. One call at a time.
   */
  read(): Promise<Uint8Array | null>;
  /**
   * Sends the bytes, after those of earlier calls, whether or not these have resolved. The buffer
   * is given away: it may still be on its way when the promise has resolved.
   *
   * @returns when more may be sent
   * @throws BlockError EIO if the connection is gone
   */
  write(bytes: Uint8Array): Promise<void>;
  /** Sends what has been written, then ends the connection. */
  finish(): void;
  /** Ends the connection at once: a read() resolves with null, a write() throws. */
  destroy(): void;
  /**
   * Resolves when the connection is gone, whoever ended it; also when the other side has finished
   * sending and all of it has been read.
   */
  readonly closed: Promise<void>;
}

/** Where connections come in. */
export interface Listener {
  /** Lets no more in. Connections that are there stay. */
  close(): Promise<void>;
}
