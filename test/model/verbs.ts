/** What users ask of jobs: anything at any time, and, when it is to come to an end, the right thing. */

import { BlockJob } from "../../src/blockjob/block-job.ts";
import type { Job } from "../../src/job/job.ts";
import type { JobVerb } from "../../src/job/status.ts";
import type { Life } from "./life.ts";
import { type Scene, SPEEDS } from "./starters.ts";
import type { Talk } from "./talk.ts";

const FAST = 1_048_576;

export class Verbs {
  readonly #scene: Scene;

  constructor(scene: Scene) {
    this.#scene = scene;
  }

  /** Any verb on any job, also on one that is gone. */
  any(talk: Talk): void {
    const { dice, jobs } = this.#scene;
    const { alive } = jobs;
    const life = alive.length > 0 && !dice.oneIn(12) ? dice.pick(alive) : undefined;
    const id = life?.id ?? "nobody";
    const speed = dice.pick(SPEEDS);
    const [verb, command, args] = dice.pick<readonly [JobVerb, string, object]>([
      ["pause", "job-pause", { id }],
      ["pause", "block-job-pause", { device: id }],
      ["resume", "job-resume", { id }],
      ["resume", "block-job-resume", { device: id }],
      ["complete", "job-complete", { id }],
      ["complete", "block-job-complete", { device: id }],
      ["finalize", dice.pick(["job-finalize", "block-job-finalize"]), { id }],
      ["dismiss", dice.pick(["job-dismiss", "block-job-dismiss"]), { id }],
      ["cancel", "job-cancel", { id }],
      ["cancel", "block-job-cancel", { device: id, force: dice.oneIn(3) }],
      ["set-speed", "block-job-set-speed", { device: id, speed }],
      ["set-speed", "block-job-set-speed", { device: id, speed }],
      ["change", "block-job-change", { id, type: "mirror", "copy-mode": "write-blocking" }],
    ]);
    this.#ask(talk, life, verb, command, args);
  }

  #ask(talk: Talk, life: Life | undefined, verb: JobVerb, command: string, args: object): void {
    if (life) this.#remember(life, verb);
    const moves = life?.moves ?? 0;
    const isBlockVerb = command.startsWith("block-job");
    talk.send(command, args, (reply) => {
      // An engine that closes refuses everything.
      if (!life || this.#scene.jobs.isClosing || (isBlockVerb && !life.init.isBlock)) return;
      life.checkReply(verb, moves, reply);
    });
  }

  #remember(life: Life, verb: JobVerb): void {
    const { group } = life;
    if (verb === "complete") life.isCompleteAsked = true;
    if (verb === "cancel") group.isCancelAsked = true;
    if (verb === "dismiss") life.isDismissAsked = true;
    if (verb === "finalize") group.isFinalizeAsked = true;
    if (verb === "change") life.isChanged = true;
  }

  query(talk: Talk): void {
    const queries = ["query-jobs", "query-block-jobs", "query-named-block-nodes", "query-block"];
    talk.send(this.#scene.dice.pick(queries), {});
  }

  /**
   * Helps every job to its end, whatever it waits for.
   *
   * @param byForce it tries in vain, such as to write to an image that is broken: ends that
   */
  urge(talk: Talk, byForce = false): void {
    for (const job of this.#scene.engine.jobs.all()) {
      const life = this.#scene.jobs.find(job.id!);
      if (!life) continue;
      this.#urge(talk, life, job);
      if (byForce) this.#ask(talk, life, "cancel", "job-cancel", { id: life.id });
    }
  }

  #urge(talk: Talk, life: Life, job: Job): void {
    const { id } = life;
    const ask = (verb: JobVerb, args: object = { id }) =>
      this.#ask(talk, life, verb, `job-${verb}`, args);
    if (job.status === "pending") ask("finalize");
    else if (job.status === "concluded") ask("dismiss");
    else if (job.userPaused) ask("resume");
    else if (job.ready && this.#scene.dice.oneIn(2)) ask("complete");
    else if (job.ready) this.#ask(talk, life, "cancel", "block-job-cancel", { device: id });
    // Fast enough to come to an end; but by itself, when its sleeps are over.
    if (job instanceof BlockJob && job.speed > 0 && job.speed < FAST) {
      talk.send("block-job-set-speed", { device: id, speed: this.#scene.dice.pick([0, FAST]) });
    }
    if (life.init.isEndless && job.status === "running") ask("cancel");
  }
}
