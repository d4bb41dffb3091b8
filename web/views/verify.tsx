/** Reads the whole disk, so that "it is all here" is a fact and not a promise. */

import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import type { App, Stage } from "../app.ts";
import { formatBytes, percentOf } from "../format.ts";
import { type Verdict, verifyDisk } from "../verify.ts";
import { Bar, Button, ProblemAt } from "./parts.tsx";

type Open = Extract<Stage, { kind: "open" }>;

/** The bar need not move more often. */
const REPAINT_MS = 100;

export function VerifyPanel({ app, stage }: { readonly app: App; readonly stage: Open }) {
  const { device } = stage;
  const done = useSignal(0);
  const verdict = useSignal<Verdict | undefined>(undefined);
  const abort = useRef<AbortController | null>(null);
  const busy = app.busy.value.has("verify");

  const start = () => {
    const controller = new AbortController();
    abort.current = controller;
    done.value = 0;
    verdict.value = undefined;
    let paintedMs = 0;
    void app.actions.act("verify", async () => {
      try {
        verdict.value = await verifyDisk(device, controller.signal, (bytes) => {
          if (performance.now() - paintedMs < REPAINT_MS) return;
          paintedMs = performance.now();
          done.value = bytes;
        });
      } catch (error) {
        if (!controller.signal.aborted) throw error;
      }
    });
  };
  return (
    <section class="panel" aria-labelledby="verify-title">
      <h2 id="verify-title">Verify the whole disk</h2>
      <p class="hint">
        Reads every byte as a guest would and shows its SHA-256, the same as <code>sha256sum</code>{" "}
        of the raw disk.
      </p>
      {busy ? (
        <Bar
          label="Read"
          percent={percentOf(done.value, device.size)}
          offset={done.value}
          len={device.size}
        />
      ) : null}
      {verdict.value === undefined ? null : <Result verdict={verdict.value} />}
      <ProblemAt app={app} place="verify" />
      <p class="buttons">
        <Button testId="verify" disabled={busy} onClick={start}>
          Read {formatBytes(device.size)}
        </Button>
        {busy ? <Button onClick={() => abort.current?.abort()}>Stop</Button> : null}
      </p>
    </section>
  );
}

function Result({ verdict }: { readonly verdict: Verdict }) {
  return (
    <div
      role="status"
      class="good"
      data-testid="verify-result"
      data-sha256={verdict.sha256}
      data-bytes={verdict.bytes}
    >
      <p>All {formatBytes(verdict.bytes)} read without an error.</p>
      <p class="digest">
        SHA-256 <code>{verdict.sha256}</code>
      </p>
    </div>
  );
}
