/**
 * Domains as those use them who work with them: the same classes over a driver in this thread and over one
 * behind a port (domain-client.ts). Names are libvirt's in JavaScript's casing; what it leaves at 0 or NULL may
 * be left out.
 *
 *     const domain = connection.domain("demo");
 *     await domain.blockPull("vda");
 *     connection.subscribe((event) => …);
 */

import type {
  ArgumentsOf,
  BlockCopyParams,
  CallName,
  CallOptions,
  Calls,
  ResultOf,
} from "./calls.ts";
import type { DomainDefinition, ImageDefinition } from "./definition.ts";
import type { DomainListener } from "./events.ts";

/** Who answers calls. */
export interface Caller {
  /** @throws DomainError */
  call<Name extends CallName>(
    name: Name,
    args: ArgumentsOf<Name>,
    options?: CallOptions,
  ): Promise<ResultOf<Name>>;
  /** @returns ends it */
  subscribe(listener: DomainListener): () => void;
}

export class Connection {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** A handle; there need be no such domain yet. */
  domain(name: string): Domain {
    return new Domain(this.#caller, name);
  }

  listAllDomains() {
    return this.#caller.call("listAllDomains", []);
  }

  /** @throws DomainError NO_DOMAIN */
  lookupByName(name: string) {
    return this.#caller.call("lookupByName", [name]);
  }

  /** Also of a domain that is there: what it will be from its next start on. @throws DomainError XML_ERROR */
  async define(definition: DomainDefinition, flags = 0): Promise<Domain> {
    await this.#caller.call("define", [definition, flags]);
    return this.domain(definition.name);
  }

  /** Events of all domains from now on. @returns ends it */
  subscribe(listener: DomainListener): () => void {
    return this.#caller.subscribe(listener);
  }
}

/** The arguments after the domain's name. */
type RestOf<Name extends CallName> =
  Parameters<Calls[Name]> extends [string, ...infer Rest] ? Rest : never;

/** All of them throw DomainError; docs/domain.md says which number when. */
export class Domain {
  readonly name: string;
  readonly #caller: Caller;

  /** Use Connection.domain(). */
  constructor(caller: Caller, name: string) {
    this.#caller = caller;
    this.name = name;
  }

  #call<Name extends CallName>(name: Name, rest: RestOf<Name>, options?: CallOptions) {
    const args = [this.name, ...rest] as unknown as ArgumentsOf<Name>;
    return this.#caller.call(name, args, options);
  }

  create(flags = 0) {
    return this.#call("create", [flags]);
  }

  /** Only where nobody has a disk open and no job is at work. */
  shutdown(flags = 0) {
    return this.#call("shutdown", [flags]);
  }

  /** At once: jobs are cancelled, devices are taken away. */
  destroy(flags = 0) {
    return this.#call("destroy", [flags]);
  }

  undefine(flags = 0) {
    return this.#call("undefine", [flags]);
  }

  info() {
    return this.#caller.call("lookupByName", [this.name]);
  }

  getDesc(flags = 0) {
    return this.#call("getDesc", [flags]);
  }

  /** Copies all that the disk inherits into its top image. Resolves when the job has begun. */
  blockPull(disk: string, bandwidth = 0, flags = 0) {
    return this.#call("blockPull", [disk, bandwidth, flags]);
  }

  /** As blockPull(), down to `base`; with COPY, as blockCopy() to the path `base`. */
  blockRebase(disk: string, base: string | null, bandwidth = 0, flags = 0) {
    return this.#call("blockRebase", [disk, base, bandwidth, flags]);
  }

  blockCopy(disk: string, destination: ImageDefinition, params: BlockCopyParams = {}, flags = 0) {
    return this.#call("blockCopy", [disk, destination, params, flags]);
  }

  blockCommit(disk: string, base: string | null, top: string | null, bandwidth = 0, flags = 0) {
    return this.#call("blockCommit", [disk, base, top, bandwidth, flags]);
  }

  /** Resolves when the job is over, or with ASYNC when it has been told to end. */
  blockJobAbort(disk: string, flags = 0, options?: CallOptions) {
    return this.#call("blockJobAbort", [disk, flags], options);
  }

  getBlockJobInfo(disk: string, flags = 0) {
    return this.#call("getBlockJobInfo", [disk, flags]);
  }

  blockJobSetSpeed(disk: string, bandwidth: number, flags = 0) {
    return this.#call("blockJobSetSpeed", [disk, bandwidth, flags]);
  }

  listBlockJobs() {
    return this.#call("listBlockJobs", []);
  }

  backupBegin(...[backup = {}, checkpoint = null, flags = 0]: Partial<RestOf<"backupBegin">>) {
    return this.#call("backupBegin", [backup, checkpoint, flags]);
  }

  backupGetDesc(flags = 0) {
    return this.#call("backupGetDesc", [flags]);
  }

  abortJob() {
    return this.#call("abortJob", []);
  }

  getJobStats(flags = 0) {
    return this.#call("getJobStats", [flags]);
  }

  /** @returns its name */
  checkpointCreate(...[definition = {}, flags = 0]: Partial<RestOf<"checkpointCreate">>) {
    return this.#call("checkpointCreate", [definition, flags]);
  }

  checkpointDelete(name: string, flags = 0) {
    return this.#call("checkpointDelete", [name, flags]);
  }

  checkpointGetDesc(name: string, flags = 0) {
    return this.#call("checkpointGetDesc", [name, flags]);
  }

  checkpointGetParent(name: string, flags = 0) {
    return this.#call("checkpointGetParent", [name, flags]);
  }

  listAllCheckpoints(flags = 0) {
    return this.#call("listAllCheckpoints", [flags]);
  }

  /** Its children, with DESCENDANTS also theirs. */
  checkpointListAllChildren(name: string, flags = 0) {
    return this.#call("checkpointListAllChildren", [name, flags]);
  }

  snapshotCreate(...[definition = {}, flags = 0]: Partial<RestOf<"snapshotCreate">>) {
    return this.#call("snapshotCreate", [definition, flags]);
  }
}
