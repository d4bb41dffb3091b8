/** The jobs of the engine: what each is at, its verbs, and a form to start one of any type. */

import { flags } from "../../src/domain/client.ts";
import { mayApply } from "../../src/engine/client.ts";
import type { App } from "../app.ts";
import { TARGET } from "../define.ts";
import { hasEnded, isOfDisk, isOwnWork, isPull, type Job } from "../fold.ts";
import { formatBytes, formatRate, percentOf } from "../format.ts";
import { stopProblem } from "../hints.ts";
import {
  argumentsOf,
  type FieldValues,
  freeId,
  JOB_FORMS,
  type Field as JobField,
  type JobForm,
  wrongFields,
} from "../job-forms.ts";
import { rateOf } from "../rate.ts";
import { type Field, FieldsForm } from "./fields.tsx";
import { HistoryList } from "./history.tsx";
import { Bar, Button, ProblemAt, ProblemBox } from "./parts.tsx";

export function JobsPanel({ app }: { readonly app: App }) {
  const jobs = app.view.jobs.value.filter(({ id }) => !isPull(id) && !isOwnWork(id)).reverse();
  return (
    <section class="panel" aria-labelledby="jobs-title" data-testid="jobs">
      <h2 id="jobs-title">Jobs</h2>
      <p class="hint">
        {jobs.length === 0
          ? "Copies, commits, backups, snapshots: none yet besides the stream above."
          : "The newest first, whoever has started it."}
      </p>
      <StartForm app={app} />
      <ProblemAt app={app} place="jobs" />
      <ul class="jobs">
        {jobs.map((job) => (
          <li key={job.id}>
            <Row app={app} job={job} />
          </li>
        ))}
      </ul>
      <HistoryList app={app} />
    </section>
  );
}

function Row({ app, job }: { readonly app: App; readonly job: Job }) {
  return (
    <div
      class="job-row"
      data-testid={`job-${job.id}`}
      data-status={job.status}
      data-outcome={job.outcome ?? ""}
    >
      <h3>
        <code>{job.type}</code> {job.id}
        <span class={`chip status ${toneOf(job)}`} role="status">
          {hasEnded(job) ? (job.outcome ?? job.status) : job.status}
        </span>
        <small>{progressOf(job)}</small>
      </h3>
      <Bar
        label={`Progress of ${job.id}`}
        percent={percentOf(job.offset, job.len)}
        offset={job.offset}
        len={job.len}
        tone={toneOf(job)}
      />
      {job.error === undefined ? null : <ProblemBox problem={{ text: job.error }} />}
      {job.stopped === undefined ? null : (
        <ProblemBox problem={stopProblem(job.stopped, job.status)} />
      )}
      {isConverged(job) ? <p class="hint">{READY_HINT}</p> : null}
      <Verbs app={app} job={job} />
    </div>
  );
}

const READY_HINT =
  "Both sides are the same, and are kept so: it waits to be told how to end. Complete moves the " +
  "disk over.";

/** "12 MiB of 64 MiB, 8 MiB/s, limit 8 MiB/s"; nothing of jobs that are one step. */
function progressOf(job: Job): string {
  const { offset, len, speed } = job;
  if (speed === undefined) return len > 1 ? `step ${offset} of ${len}` : "";
  const rate = job.status === "running" ? rateOf(job.meter) : undefined;
  return [
    `${formatBytes(offset)} of ${formatBytes(len)}`,
    rate === undefined ? "" : formatRate(Math.round(rate)),
    speed === 0 || hasEnded(job) ? "" : `limit ${formatRate(speed)}`,
  ]
    .filter((part) => part !== "")
    .join(", ");
}

interface Verb {
  readonly label: string;
  /** Verb of the engine's table. */
  readonly verb: Parameters<typeof mayApply>[0];
  readonly title: string;
  readonly danger?: boolean;
  readonly isFor?: (job: Job) => boolean;
  run(app: App, job: Job): Promise<unknown>;
}

const isConverging = (job: Job) => job.type === "mirror" || job.type === "commit";
const isConverged = (job: Job) => job.status === "ready" || job.status === "standby";
const isParked = (job: Job) => job.status === "paused" || job.status === "standby";

const VERBS: readonly Verb[] = [
  {
    label: "Pause",
    verb: "pause",
    title: "Stops it between two requests",
    isFor: (job) => !isParked(job),
    run: (app, { id }) => app.client.execute("job-pause", { id }),
  },
  {
    label: "Resume",
    verb: "resume",
    title: "Lets it go on",
    isFor: isParked,
    run: (app, { id }) => app.client.execute("job-resume", { id }),
  },
  {
    label: "No limit",
    verb: "set-speed",
    title: "Lets it run as fast as it can",
    isFor: ({ speed = 0 }) => speed > 0,
    run: (app, { id }) => app.client.execute("block-job-set-speed", { device: id, speed: 0 }),
  },
  {
    label: "Write to both",
    verb: "change",
    title: "From now on a write to the disk waits for the target, too: so it catches up for sure",
    isFor: ({ type }) => type === "mirror",
    run: (app, { id }) =>
      app.client.execute("block-job-change", {
        id,
        type: "mirror",
        "copy-mode": "write-blocking",
      }),
  },
  {
    label: "Complete",
    verb: "complete",
    title: "Moves the disk over to the other side: the page then reads and writes that",
    isFor: isConverged,
    run: (app, { id }) =>
      isOfDisk(id)
        ? app.vda.domain.blockJobAbort(TARGET, flags.BLOCK_JOB_ABORT.PIVOT)
        : app.client.execute("job-complete", { id }),
  },
  {
    label: "End without moving over",
    verb: "cancel",
    title: "The other side is a good copy as of now; the disk stays where it is",
    isFor: (job) => isConverging(job) && isConverged(job),
    run: (app, { id }) =>
      isOfDisk(id)
        ? app.vda.domain.blockJobAbort(TARGET)
        : app.client.execute("block-job-cancel", { device: id }),
  },
  {
    label: "Finalize",
    verb: "finalize",
    title: "Lets it take effect",
    run: (app, { id }) => app.client.execute("job-finalize", { id }),
  },
  {
    label: "Cancel",
    verb: "cancel",
    title: "Ends it at once: what it has not finished is of no use",
    danger: true,
    run: (app, { id }) => app.client.execute("job-cancel", { id }),
  },
];

function Verbs({ app, job }: { readonly app: App; readonly job: Job }) {
  const busy = app.busy.value.has("jobs");
  if (hasEnded(job)) {
    return (
      <p class="buttons">
        <Button
          disabled={busy}
          title="Takes it off the list"
          onClick={() => void app.dismissJob(job)}
        >
          Dismiss
        </Button>
      </p>
    );
  }
  const shown = VERBS.filter(
    ({ verb, isFor }) => mayApply(verb, job.status) && (isFor?.(job) ?? true),
  );
  return (
    <p class="buttons">
      {shown.map(({ label, title, danger, run }) => (
        <Button
          key={label}
          title={title}
          disabled={busy}
          {...(danger && { kind: "danger" as const })}
          onClick={() => void app.actions.act("jobs", () => run(app, job))}
        >
          {label}
        </Button>
      ))}
    </p>
  );
}

function StartForm({ app }: { readonly app: App }) {
  const start = (name: string, values: FieldValues) => {
    const form = formOf(name);
    const id = freeId(form.type, new Set(app.view.jobs.value.map((job) => job.id)));
    return app.actions.act("jobs", () =>
      app.client.execute(form.command, argumentsOf(form, id, values) as never),
    );
  };
  return (
    <FieldsForm
      title="Start a job"
      what="job"
      ids={{ form: "start-job", choice: "job-type", field: "field", submit: "job-start" }}
      names={JOB_FORMS.map(({ type }) => type)}
      entryOf={(name) => {
        const form = formOf(name);
        return {
          name,
          about: form.about,
          fields: form.fields.map((field) => asField(field, app)),
          label: form.isNoJob ? form.command : `Start ${form.command}`,
          defaults: defaultsOf(form, app),
        };
      }}
      wrongFields={(name, values) => wrongFields(formOf(name), values)}
      hintOf={(wrong) => (wrong.includes("target") ? " A target is made under Images." : "")}
      busy={app.busy.value.has("jobs")}
      submit={start}
    />
  );
}

function formOf(type: string): JobForm {
  return JOB_FORMS.find((form) => form.type === type)!;
}

function asField(field: JobField, app: App): Field {
  const { name, kind } = field;
  const isRequired = "required" in field && field.required === true;
  switch (kind) {
    case "flag":
      return { name, kind, none: "" };
    case "speed":
      return { name, kind, none: "unlimited" };
    case "text":
      return { name, kind, none: isRequired ? "" : "none" };
    default: {
      const values = kind === "choice" ? field.choices : imageNodes(app);
      const choices = values.map((value) => ({ value }));
      return { name, kind: "choice", none: isRequired ? "" : "default", choices };
    }
  }
}

/** Nodes that hold a disk: no stores, no filters of jobs. */
function imageNodes(app: App): string[] {
  return app.view.snapshot.value.nodes
    .filter((node) => node.drv === "qcow2" || node.drv === "raw")
    .map((node) => node["node-name"]);
}

/** What most people want: the page's disk, and the first choice of each list. */
function defaultsOf(form: JobForm, app: App): FieldValues {
  const disk = app.view.diskNode.value;
  const values: Record<string, string> = {};
  for (const field of form.fields) {
    if (!("required" in field) || field.required !== true) continue;
    if (field.kind === "choice") values[field.name] = field.choices[0]!;
    else if (field.name === "target") {
      const [other] = imageNodes(app).filter((name) => !app.view.isInChain(name));
      values[field.name] = other ?? "";
    } else if (field.kind !== "text") values[field.name] = disk;
  }
  return values;
}

function toneOf(job: Job): string {
  if (job.stopped !== undefined || job.outcome === "failed") return "bad";
  if (job.outcome === "completed" || isConverged(job)) return "good";
  return job.status === "running" ? "" : "still";
}
