/** The disk as a file: download it, or delete it. */

import { useRef } from "preact/hooks";
import type { App } from "../app.ts";
import { Button, ConfirmDialog, ProblemAt } from "./parts.tsx";

export function ToolsPanel({ app }: { readonly app: App }) {
  const stage = app.stage.value;
  const dialog = useRef<HTMLDialogElement>(null);
  const busy = app.busy.value.has("tools") || app.busy.value.has("disk");
  const hasJob = app.view.hasActiveJob.value;
  const isReading = app.busy.value.has("verify");
  const filename = app.vda.filename.value;
  const reason = hasJob
    ? "Wait until the job has ended, or cancel it: the file must stand still"
    : isReading
      ? "Wait until the disk has been read"
      : undefined;
  return (
    <section class="panel" aria-labelledby="tools-title">
      <h2 id="tools-title">{filename}</h2>
      <p class="hint">
        {app.view.isWhole.value && stage.kind === "open" ? (
          "A plain qcow2 file that every QEMU tool reads."
        ) : (
          <>
            Downloaded before it is whole, the file needs a copy of its template beside it:{" "}
            <code>qemu-img rebase -u -F FORMAT -b TEMPLATE {filename}</code>
          </>
        )}
      </p>
      {stage.kind === "open" && stage.readOnly ? <ReadOnly app={app} busy={busy} /> : null}
      <ProblemAt app={app} place="tools" />
      <ConfirmDialog
        dialog={dialog}
        title="Delete this disk?"
        testId="delete-disk-confirm"
        onDelete={() => void app.startOver()}
      >
        {filename}, and what is under it in this browser, go for good, in all tabs
        {hasJob ? ", and all jobs are cancelled" : ""}. The template and the other images are not
        touched.
      </ConfirmDialog>
      <p class="buttons">
        <Button
          testId="download"
          disabled={busy || reason !== undefined}
          title={reason}
          onClick={() => void app.download()}
        >
          Download
        </Button>
        <Button
          testId="delete-disk"
          kind="danger"
          disabled={busy || isReading}
          onClick={() => dialog.current?.showModal()}
        >
          Delete …
        </Button>
        {reason === undefined ? null : <span class="hint">{reason}.</span>}
      </p>
    </section>
  );
}

function ReadOnly({ app, busy }: { readonly app: App; readonly busy: boolean }) {
  return (
    <p class="banner" role="status">
      Open for reading only while the browser saves the file: a write would break the download.{" "}
      <Button testId="reopen-writable" disabled={busy} onClick={() => void app.reopen()}>
        It is saved, allow writing
      </Button>
    </p>
  );
}
