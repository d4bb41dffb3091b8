/**
 * What a repair must not write over: which clusters hold a guest's data, and which L2 tables.
 *
 * A table can be said to lie where data is, or to be longer than it is. What looks like wrong entries there
 * is somebody's bytes, and is left to people. (QEMU's repair knows only where metadata is.)
 */

import { ClusterBits } from "./cluster-bits.ts";

export class Uses {
  readonly #data: ClusterBits;
  readonly #l2Tables: ClusterBits;

  /** @param clusters of the file */
  constructor(clusters: number) {
    this.#data = new ClusterBits(clusters);
    this.#l2Tables = new ClusterBits(clusters);
  }

  addData(first: number, last = first): void {
    for (let i = first; i <= last; i++) this.#data.set(i);
  }

  addL2Table(cluster: number): void {
    this.#l2Tables.set(cluster);
  }

  /** What is not known may be data. */
  mayBeData(cluster: number): boolean {
    return this.#data.get(cluster) !== false;
  }

  mayBeDataOrL2(cluster: number): boolean {
    return this.mayBeData(cluster) || this.#l2Tables.get(cluster) !== false;
  }
}
