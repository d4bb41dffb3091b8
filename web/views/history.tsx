/** Jobs that have ended, in whichever tab: how, how much they did, how long it took. */

import type { App } from "../app.ts";
import { describeWork, type EndedJob } from "../history.ts";
import { Button } from "./parts.tsx";

export function HistoryList({ app }: { readonly app: App }) {
  const ended = app.aftermath.history.value;
  if (ended.length === 0) return null;
  const busy = app.busy.value.has("jobs");
  return (
    <details class="start-job" data-testid="history">
      <summary>History ({ended.length})</summary>
      <p class="hint">
        What has ended is kept here over reloads and tabs, until somebody dismisses it.{" "}
        <Button
          testId="history-clear"
          disabled={busy}
          onClick={() => void app.aftermath.dismissHistory()}
        >
          Dismiss all
        </Button>
      </p>
      <ul class="images">
        {ended.map((job, n) => (
          <li key={`${job.id}.${ended.length - n}`} data-testid={`ended-${job.id}`}>
            <Row app={app} job={job} busy={busy} />
          </li>
        ))}
      </ul>
    </details>
  );
}

interface RowProps {
  readonly app: App;
  readonly job: EndedJob;
  readonly busy: boolean;
}

function Row({ app, job, busy }: RowProps) {
  const { id, type, outcome, error } = job;
  return (
    <div class="buttons">
      <code>{type}</code> {id}
      <span class={`chip status ${toneOf(outcome)}`}>{outcome}</span>
      <span class="hint">
        {describeWork(job)}
        {outcome === "failed" && error !== undefined ? `: ${error}` : ""}
      </span>
      <Button disabled={busy} onClick={() => void app.aftermath.dismissHistory(job)}>
        Dismiss
      </Button>
    </div>
  );
}

function toneOf(outcome: EndedJob["outcome"]): string {
  if (outcome === "failed") return "bad";
  return outcome === "completed" ? "good" : "still";
}
