/** All jobs of the engine: what each is at, its verbs, and a form to start one of any type. */

import { useSignal } from "@preact/signals";
import { mayApply } from "../../src/engine/client.ts";
import type { App } from "../app.ts";
import { hasEnded, type Job } from "../fold.ts";
import { formatBytes, formatRate, percentOf } from "../format.ts";
import {
  argumentsOf,
  type Field,
  type FieldValues,
  freeId,
  JOB_FORMS,
  type JobForm,
  wrongFields,
} from "../job-forms.ts";
import { rateOf } from "../rate.ts";
import { Bar, Button, ProblemAt } from "./parts.tsx";

export function JobsPanel({ app }: { readonly app: App }) {
  const jobs = [...app.jobs.value].reverse();
  return (
    <section class="panel" aria-labelledby="jobs-title" data-testid="jobs">
      <h2 id="jobs-title">Jobs</h2>
      <p class="hint">Every job of the engine, the newest first, whoever has started it.</p>
      {jobs.length === 0 ? <p>None yet.</p> : null}
      <ul class="jobs">
        {jobs.map((job) => (
          <li key={job.id}>
            <Row app={app} job={job} />
          </li>
        ))}
      </ul>
      <StartForm app={app} />
      <ProblemAt app={app} place="jobs" />
    </section>
  );
}

function Row({ app, job }: { readonly app: App; readonly job: Job }) {
  const rate = rateOf(job.meter);
  return (
    <div
      class="job-row"
      data-testid={`job-${job.id}`}
      data-status={job.status}
      data-outcome={job.outcome ?? ""}
    >
      <p class="name">
        <code>{job.type}</code> {job.id}{" "}
        <span class={`chip status ${toneOf(job)}`}>
          {hasEnded(job) ? (job.outcome ?? job.status) : job.status}
        </span>
        <span class="hint">
          {isBlockJob(job)
            ? ` ${formatBytes(job.offset)} of ${formatBytes(job.len)}`
            : ` step ${job.offset} of ${job.len}`}
          {rate === undefined ? "" : `, ${formatRate(Math.round(rate))}`}
        </span>
      </p>
      <Bar
        label={`Progress of ${job.id}`}
        percent={percentOf(job.offset, job.len)}
        offset={job.offset}
        len={job.len}
        tone={toneOf(job)}
      />
      {job.error === undefined ? null : <p class="hint bad">{job.error}</p>}
      {job.stopped === undefined ? null : (
        <p class="hint bad">
          Stopped: {job.stopped.reason ?? `could not ${job.stopped.operation}`}. Resume tries the
          same bytes again.
        </p>
      )}
      <Verbs app={app} job={job} />
    </div>
  );
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
    label: "Complete",
    verb: "complete",
    title: "Moves the disk over to the target, which is what the page's disk then is",
    isFor: isConverged,
    run: (app, { id }) => app.client.execute("job-complete", { id }),
  },
  {
    label: "End without moving over",
    verb: "cancel",
    title: "The target is a good copy as of the end; the disk stays where it is",
    isFor: (job) => isConverging(job) && isConverged(job),
    run: (app, { id }) => app.client.execute("block-job-cancel", { device: id }),
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
    title: "Ends it at once; a half-made copy is of no use",
    danger: true,
    run: (app, { id }) => app.client.execute("job-cancel", { id }),
  },
];

function Verbs({ app, job }: { readonly app: App; readonly job: Job }) {
  const busy = app.busy.value.has("jobs");
  if (hasEnded(job)) {
    return (
      <p class="buttons">
        <Button disabled={busy} onClick={() => void app.dismissJob(job)}>
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
          onClick={() => void app.act("jobs", () => run(app, job))}
        >
          {label}
        </Button>
      ))}
    </p>
  );
}

function StartForm({ app }: { readonly app: App }) {
  const type = useSignal(JOB_FORMS[0]!.type);
  const values = useSignal<FieldValues>({});
  const form = JOB_FORMS.find((candidate) => candidate.type === type.value)!;
  const withDefaults: FieldValues = { ...defaultsOf(form, app), ...values.value };
  const wrong = wrongFields(form, withDefaults);
  const start = () => {
    const id = freeId(form.type, new Set(app.jobs.value.map((job) => job.id)));
    void app.act("jobs", () =>
      app.client.execute(form.command, argumentsOf(form, id, withDefaults) as never),
    );
  };
  return (
    <details class="start-job">
      <summary>Start a job</summary>
      <form
        class="fields"
        onSubmit={(event) => {
          event.preventDefault();
          start();
        }}
      >
        <label>
          type{" "}
          <select
            data-testid="job-type"
            value={type.value}
            onChange={(event) => {
              type.value = event.currentTarget.value;
              values.value = {};
            }}
          >
            {JOB_FORMS.map((candidate) => (
              <option key={candidate.type}>{candidate.type}</option>
            ))}
          </select>
        </label>
        {form.fields.map((field) => (
          <p key={`${form.type}.${field.name}`} class="field">
            <label for={`field-${field.name}`}>
              {field.name}
              {"required" in field && field.required ? "" : " (optional)"}
            </label>{" "}
            <Input
              app={app}
              field={field}
              value={withDefaults[field.name] ?? ""}
              set={(value) => {
                values.value = { ...values.value, [field.name]: value };
              }}
            />
          </p>
        ))}
        <p class="hint">{form.about}</p>
        <button
          type="submit"
          class="primary"
          data-testid="job-start"
          disabled={app.busy.value.has("jobs") || wrong.length > 0}
          title={wrong.length > 0 ? `Fill in: ${wrong.join(", ")}` : form.command}
        >
          Start {form.command}
        </button>
      </form>
    </details>
  );
}

interface InputProps {
  readonly app: App;
  readonly field: Field;
  readonly value: string;
  readonly set: (value: string) => void;
}

function Input({ app, field, value, set }: InputProps) {
  const testId = `field-${field.name}`;
  switch (field.kind) {
    case "flag":
      return (
        <input
          type="checkbox"
          id={testId}
          data-testid={testId}
          checked={value !== ""}
          onChange={(event) => set(event.currentTarget.checked ? "on" : "")}
        />
      );
    case "text":
    case "speed":
      return (
        <input
          type="text"
          size={14}
          id={testId}
          data-testid={testId}
          placeholder={field.kind === "speed" ? "unlimited" : ""}
          value={value}
          onInput={(event) => set(event.currentTarget.value)}
        />
      );
    default: {
      const choices = field.kind === "choice" ? field.choices : imageNodes(app);
      return (
        <select
          id={testId}
          data-testid={testId}
          value={value}
          onChange={(event) => set(event.currentTarget.value)}
        >
          <option value="" />
          {choices.map((choice) => (
            <option key={choice}>{choice}</option>
          ))}
        </select>
      );
    }
  }
}

/** Nodes that hold a disk: no stores, no filters of jobs. */
function imageNodes(app: App): string[] {
  return app.snapshot.value.nodes
    .filter((node) => node.drv === "qcow2" || node.drv === "raw")
    .map((node) => node["node-name"]);
}

/** What most people want: the page's disk, and the first choice of each list. */
function defaultsOf(form: JobForm, app: App): FieldValues {
  const disk = app.diskNode.value;
  const values: Record<string, string> = {};
  for (const field of form.fields) {
    if (!("required" in field) || field.required !== true) continue;
    if (field.kind === "choice") values[field.name] = field.choices[0]!;
    else if (field.name === "target") {
      const [other] = imageNodes(app).filter((name) => !app.isInChain(name));
      values[field.name] = other ?? "";
    } else if (field.kind !== "text") values[field.name] = disk;
  }
  return values;
}

/** Non-block jobs count steps, not bytes. */
function isBlockJob(job: Job): boolean {
  return job.speed !== undefined || job.len > 1;
}

function toneOf(job: Job): string {
  if (job.stopped !== undefined || job.outcome === "failed") return "bad";
  if (job.outcome === "completed" || isConverged(job)) return "good";
  return job.status === "running" ? "" : "still";
}
