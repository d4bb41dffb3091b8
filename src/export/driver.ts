/**
 * What an export type is: the way in which clients get at the bytes of a node (QEMU:
 * BlockExportDriver in include/block/export.h). ExportList does what all types have in common.
 *
 *   open()   ──▶ users come and go ──▶ shutdown()  no new users; those there are, are told to go
 *                                         └──────▶ close()     the last one has gone
 */

import type { BlockBackend } from "../block/backend.ts";
import type { OptionEntries } from "../block/driver.ts";
import type { Graph } from "../block/graph.ts";

/** What block-export-add takes whatever the type. */
export interface ExportOptions {
  readonly type: string;
  readonly id: string;
  readonly nodeName: string;
  /** Default: read only. */
  readonly writable?: boolean | undefined;
  /** There are none: naming one is an error. */
  readonly iothread?: string | undefined;
  /** A write is done when it would outlive a crash. Default: no. */
  readonly writethrough?: boolean | undefined;
}

/** Somebody who has an export open. He leaves by BlockExport.leave(). */
export interface ExportUser {
  /** The export goes away: give up what is under way and leave, at once or a little later. */
  disconnect(): void;
}

/** An export as its type and its users see it. */
export interface BlockExport {
  readonly id: string;
  readonly type: string;
  readonly writable: boolean;
  readonly backend: BlockBackend;
  /** What block-export-add was given, but for type, id and node. */
  readonly options: Readonly<Record<string, unknown>>;
  /** It is on its way out. */
  readonly shuttingDown: boolean;
  enter(user: ExportUser): void;
  leave(user: ExportUser): void;
}

/** What a type makes of an export. */
export interface OpenedExport {
  /** Nobody finds it any more. Its users are told to go after this. */
  shutdown?(): void;
  /** Nobody has it open any more: gives back what open() has taken. */
  close?(): void;
}

export interface BlockExportDriver<Options = never> {
  /** QMP name, the value of `type` in block-export-add. */
  readonly type: string;
  /** valibot entries of the type's own members of block-export-add. */
  readonly options: OptionEntries;
  /** It is a device to the graph, named by its id: query-block lists it, jobs find it. */
  readonly isDevice?: boolean;
  /** What others may do to the node meanwhile: a set of Perm bits; all if it is left out. */
  readonly share?: number;
  /**
   * @param options the type's own, checked
   * @param graph where other things are that the options name
   * @throws BlockError; nothing is kept then
   */
  open(exported: BlockExport, options: Options, graph: Graph): OpenedExport;
  /** The engine closes down, and no export of this type is left. */
  close?(): Promise<void>;
}
