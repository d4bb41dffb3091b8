/** Disks by target, as libvirt names them: what vda is, its block job, its checkpoints, and libvirt's calls on it. */

import { useSignal } from "@preact/signals";
import { type BlockJobEntry, flags, percentage } from "../../src/domain/client.ts";
import type { App } from "../app.ts";
import { TARGET } from "../define.ts";
import { type Kept, nameOf } from "../download.ts";
import { formatSpeed, parseSpeed } from "../format.ts";
import { Button, ProblemAt } from "./parts.tsx";
import { VerbForm } from "./verb-form.tsx";

export function DisksPanel({ app }: { readonly app: App }) {
  const { info, job } = app.vda;
  if (info.value === undefined) return null;
  return (
    <section class="panel" aria-labelledby="disks-title" data-testid="disks">
      <h2 id="disks-title">Disks by target</h2>
      <p class="hint">
        libvirt's view: a disk is known by its target, whatever image it is on at the moment.
      </p>
      <p class="disk-row" data-testid={`target-${TARGET}`}>
        <code class="target">{TARGET}</code>
        <span>{info.value.chain.map(({ source }) => nameOf(source as Kept)).join(" over ")}</span>
        {info.value.readonly ? <span class="chip">read only</span> : null}
      </p>
      {job.value === undefined ? null : <BlockJob app={app} job={job.value} />}
      <VerbForm app={app} />
      <Checkpoints app={app} />
      <ProblemAt app={app} place="verbs" />
    </section>
  );
}

function BlockJob({ app, job }: { readonly app: App; readonly job: BlockJobEntry }) {
  const { domain } = app.vda;
  const speed = useSignal("");
  const busy = app.busy.value.has("verbs");
  const bytesPerSecond = parseSpeed(speed.value);
  const abort = (flag: number) => () =>
    void app.callVerb("verbs", () => domain.blockJobAbort(TARGET, flag));
  return (
    <form
      class="block-job"
      data-testid="block-job"
      data-kind={job.kind}
      data-state={job.state}
      onSubmit={(event) => {
        event.preventDefault();
        void app.callVerb("verbs", () =>
          domain.blockJobSetSpeed(
            TARGET,
            bytesPerSecond ?? 0,
            flags.BLOCK_JOB_SPEED.BANDWIDTH_BYTES,
          ),
        );
      }}
    >
      <p class="disk-row">
        <code>{job.kind}</code> {job.state}, {percentage(job)} %, limit {formatSpeed(job.bandwidth)}
      </p>
      <p class="buttons">
        {job.state === "ready" ? (
          <Button
            testId="verb-pivot"
            kind="primary"
            disabled={busy}
            title="Moves the disk over to the other image"
            onClick={abort(flags.BLOCK_JOB_ABORT.PIVOT)}
          >
            Pivot
          </Button>
        ) : null}
        <Button
          testId="verb-abort"
          kind="danger"
          disabled={busy}
          title="Ends the job; the disk stays where it is"
          onClick={
            job.kind === "backup"
              ? () => void app.callVerb("verbs", () => domain.abortJob())
              : abort(0)
          }
        >
          Abort
        </Button>
        <input
          type="text"
          size={10}
          aria-label="New bandwidth"
          data-testid="verb-speed"
          placeholder="8 MiB/s"
          value={speed.value}
          aria-invalid={speed.value !== "" && bytesPerSecond === undefined}
          onInput={(event) => {
            speed.value = event.currentTarget.value;
          }}
        />
        <button
          type="submit"
          data-testid="verb-speed-set"
          disabled={busy || bytesPerSecond === undefined}
        >
          Set speed
        </button>
      </p>
    </form>
  );
}

function Checkpoints({ app }: { readonly app: App }) {
  const checkpoints = app.vda.checkpoints.value;
  if (checkpoints.length === 0) return null;
  const busy = app.busy.value.has("verbs");
  return (
    <>
      <h3 class="minor">Checkpoints</h3>
      <ul class="images" data-testid="checkpoints">
        {checkpoints.map(({ name, parent }) => (
          <li key={name}>
            <div class="buttons">
              <code>{name}</code>
              {parent === undefined ? null : <span class="hint">after {parent}</span>}
              <Button
                disabled={busy}
                title="What has changed since is counted for the one before it"
                onClick={() =>
                  void app.callVerb("verbs", () => app.vda.domain.checkpointDelete(name))
                }
              >
                Delete
              </Button>
            </div>
          </li>
        ))}
      </ul>
    </>
  );
}
