/** The disk as a file: download it, or delete it. */

import { useRef } from "preact/hooks";
import type { App } from "../app.ts";
import { isLocalStore } from "../chain.ts";
import { type Kept, nameOf } from "../download.ts";
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
    <section class="panel" aria-labelledby="tools-title" data-testid="tools">
      <h2 id="tools-title">{filename}</h2>
      <p class="hint">
        <About app={app} filename={filename} isOpen={stage.kind === "open"} />
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

interface AboutProps {
  readonly app: App;
  readonly filename: string;
  readonly isOpen: boolean;
}

/** What the file is good for once it is downloaded. */
function About({ app, filename, isOpen }: AboutProps) {
  const below = app.vda.info.value?.chain[1]?.source;
  if (below !== undefined && isLocalStore(below.driver)) {
    return (
      <>
        An overlay, of no use without <code>{nameOf(below as Kept)}</code> under it. To have all in
        one file, call blockPull before you download it.
      </>
    );
  }
  if (app.view.isWhole.value && isOpen) return <>A plain qcow2 file that every QEMU tool reads.</>;
  return (
    <>
      Downloaded before it is whole, the file needs a copy of its template beside it:{" "}
      <code>qemu-img rebase -u -F FORMAT -b TEMPLATE {filename}</code>
    </>
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
