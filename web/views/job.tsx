/** The block-stream job: how far, how fast, and what can be asked of it. */

import { useSignal } from "@preact/signals";
import { type App, DEFAULT_SPEED, type Stage } from "../app.ts";
import { isActive, type Job } from "../fold.ts";
import {
  formatBytes,
  formatRate,
  formatSeconds,
  formatSpeed,
  parseSpeed,
  percentOf,
} from "../format.ts";
import { stopProblem, withHint } from "../hints.ts";
import { etaSeconds, rateOf } from "../rate.ts";
import { Bar, Button, ProblemAt, ProblemBox } from "./parts.tsx";

type Open = Extract<Stage, { kind: "open" }>;

const PRESETS = [1, 4, 8, 32].map((mebi) => mebi * 2 ** 20).concat(0);

export function JobPanel({ app, stage }: { readonly app: App; readonly stage: Open }) {
  const job = app.view.job.value;
  const isWhole = app.view.isWhole.value;
  // A disk that came whole out of the storage has no job to show.
  if (job === undefined && isWhole) return null;
  return (
    <section
      class="panel"
      aria-labelledby="job-title"
      data-testid="job"
      data-outcome={job?.outcome ?? ""}
    >
      <h2 id="job-title">
        Job <code>block-stream</code>
        {job === undefined ? null : <Status job={job} />}
      </h2>
      {job === undefined ? <p>{IN_PART}</p> : <Numbers job={job} />}
      {job === undefined ? null : <Ending job={job} isWhole={isWhole} />}
      <ProblemAt app={app} place="job" />
      <Controls app={app} stage={stage} job={job} />
    </section>
  );
}

function Status({ job }: { readonly job: Job }) {
  return (
    <span class={`chip status ${toneOf(job)}`} role="status" data-testid="job-status">
      {job.status}
    </span>
  );
}

function Numbers({ job }: { readonly job: Job }) {
  const { offset, len } = job;
  const percent = percentOf(offset, len);
  const rate = job.status === "running" ? rateOf(job.meter) : undefined;
  const eta = job.status === "running" ? etaSeconds(job.meter, len - offset) : undefined;
  return (
    <>
      <Bar
        label="Streamed"
        testId="job-progress"
        percent={percent}
        offset={offset}
        len={len}
        tone={toneOf(job)}
      />
      <dl class="numbers">
        <Fact name="done">
          {percent} % <small>{`${formatBytes(offset)} of ${formatBytes(len)}`}</small>
        </Fact>
        <Fact name="rate" testId="job-rate" title="How fast the job moves; holes take no time">
          {rate === undefined ? "–" : formatRate(Math.round(rate))}
        </Fact>
        <Fact name="left" testId="job-eta">
          {eta === undefined ? "–" : formatSeconds(eta)}
        </Fact>
        <Fact name="limit">{formatSpeed(job.speed ?? 0)}</Fact>
        <Fact name="I/O">{job.ioStatus}</Fact>
      </dl>
    </>
  );
}

interface FactProps {
  readonly name: string;
  readonly children: preact.ComponentChildren;
  readonly testId?: string;
  readonly title?: string;
}

function Fact({ name, children, testId, title }: FactProps) {
  return (
    <div title={title}>
      <dt>{name}</dt>
      <dd data-testid={testId}>{children}</dd>
    </div>
  );
}

const IN_PART =
  "This disk still reads in part from its template. Pull in the rest to make it local.";

interface EndingProps {
  readonly job: Job;
  /** Of a pull down to a base the end is not that of the template. */
  readonly isWhole: boolean;
}

/** How it ended, or why it stands still, in words. */
function Ending({ job, isWhole }: EndingProps) {
  if (job.stopped !== undefined)
    return <ProblemBox problem={stopProblem(job.stopped, job.status)} />;
  switch (job.outcome) {
    case "completed":
      return isWhole ? (
        <p class="good">Done: the disk is whole and local. You can stop the server.</p>
      ) : (
        <p>Done. {IN_PART}</p>
      );
    case "cancelled":
      return (
        <p>
          Cancelled. What was copied stays, and the disk reads as before; started again, the job
          skips what is there.
        </p>
      );
    case "failed":
      return <ProblemBox problem={withHint(job.error ?? "The job failed", undefined)} />;
    default:
      return null;
  }
}

function Controls({
  app,
  stage,
  job,
}: {
  readonly app: App;
  readonly stage: Open;
  readonly job: Job | undefined;
}) {
  const speed = useSignal(formatSpeed(DEFAULT_SPEED));
  const busy = app.busy.value.has("job");
  const bytesPerSecond = parseSpeed(speed.value);
  const isSpeedWrong = bytesPerSecond === undefined;
  const isDone = job?.outcome === "completed";
  if (isDone && app.view.isWhole.value) return null;

  const start = () => {
    if (bytesPerSecond !== undefined) void app.startStream(bytesPerSecond);
  };
  return (
    <div class="controls">
      <p class="buttons">
        {isActive(job) ? (
          <Verbs app={app} job={job} busy={busy} />
        ) : (
          <Button
            kind="primary"
            testId="start-again"
            disabled={busy || stage.readOnly || isSpeedWrong}
            title={stage.readOnly ? "The disk is open for reading only" : undefined}
            onClick={start}
          >
            {job === undefined || isDone ? "Pull in the rest" : "Start again"}
          </Button>
        )}
      </p>
      <form
        class="speed"
        onSubmit={(event) => {
          event.preventDefault();
          if (bytesPerSecond !== undefined) void app.setSpeed(bytesPerSecond);
        }}
      >
        <label>
          Speed limit{" "}
          <input
            type="text"
            data-testid="speed"
            list="speeds"
            size={12}
            value={speed.value}
            aria-invalid={isSpeedWrong}
            aria-describedby="speed-help"
            onInput={(event) => {
              speed.value = event.currentTarget.value;
            }}
          />
        </label>
        <datalist id="speeds">
          {PRESETS.map((preset) => (
            <option key={preset} value={formatSpeed(preset)} />
          ))}
        </datalist>
        <button
          type="submit"
          data-testid="speed-set"
          disabled={busy || !isActive(job) || isSpeedWrong}
        >
          Set
        </button>
        <span class="presets">
          {PRESETS.map((preset) => (
            <Button
              key={preset}
              disabled={busy}
              onClick={() => {
                speed.value = formatSpeed(preset);
                if (isActive(job)) void app.setSpeed(preset);
              }}
            >
              {preset === 0 ? "∞" : formatBytes(preset)}
            </Button>
          ))}
        </span>
        <span id="speed-help" class="hint">
          {isSpeedWrong ? "Write it like 8 MiB/s, 500k or unlimited" : ""}
        </span>
      </form>
    </div>
  );
}

function Verbs({ app, job, busy }: { app: App; job: Job; busy: boolean }) {
  const isPaused = job.status === "paused";
  return (
    <>
      <Button
        testId="pause"
        disabled={busy || job.status !== "running"}
        onClick={() => void app.pause(job)}
      >
        Pause
      </Button>
      <Button testId="resume" disabled={busy || !isPaused} onClick={() => void app.resume(job)}>
        Resume
      </Button>
      <Button testId="cancel" kind="danger" disabled={busy} onClick={() => void app.cancel()}>
        Cancel
      </Button>
    </>
  );
}

function toneOf(job: Job): string {
  if (job.stopped !== undefined || job.outcome === "failed") return "bad";
  if (job.outcome === "completed") return "good";
  return job.status === "running" ? "" : "still";
}
