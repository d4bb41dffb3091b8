/** The disk as a file: download it, or delete it. */

import { useRef } from "preact/hooks";
import type { App } from "../app.ts";
import { Button, ProblemAt } from "./parts.tsx";

export function ToolsPanel({ app }: { readonly app: App }) {
  const stage = app.stage.value;
  const dialog = useRef<HTMLDialogElement>(null);
  const busy = app.busy.value.has("tools") || app.busy.value.has("disk");
  const hasJob = app.hasActiveJob.value;
  const isReading = app.busy.value.has("verify");
  const hasMoved = app.diskNode.value !== "disk";
  const reason = hasMoved
    ? "The disk has moved over to another image: see above"
    : hasJob
      ? "Wait until the job has ended, or cancel it: the file must stand still"
      : isReading
        ? "Wait until the disk has been read"
        : undefined;
  return (
    <section class="panel" aria-labelledby="tools-title">
      <h2 id="tools-title">disk.qcow2</h2>
      <p class="hint">
        {app.isWhole.value && stage.kind === "open" ? (
          "A plain qcow2 file that every QEMU tool reads."
        ) : (
          <>
            Downloaded before it is whole, the file needs a copy of its template beside it:{" "}
            <code>qemu-img rebase -u -F FORMAT -b TEMPLATE disk.qcow2</code>
          </>
        )}
      </p>
      {stage.kind === "open" && stage.readOnly ? <ReadOnly app={app} busy={busy} /> : null}
      {hasMoved ? <Moved node={app.diskNode.value} /> : null}
      <ProblemAt app={app} place="tools" />
      <dialog ref={dialog} aria-labelledby="delete-title">
        <form method="dialog">
          <h2 id="delete-title">Delete this disk?</h2>
          <p>
            disk.qcow2 and everything written to it go for good
            {hasJob ? ", and the job is cancelled" : ""}. The template is not touched.
          </p>
          <p class="choices">
            <button type="submit">Keep it</button>
            <button
              type="button"
              class="danger"
              data-testid="delete-disk-confirm"
              onClick={() => {
                dialog.current?.close();
                void app.startOver();
              }}
            >
              Delete
            </button>
          </p>
        </form>
      </dialog>
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
        {hasJob ? <span class="hint">Download once the job has ended.</span> : null}
      </p>
    </section>
  );
}

/** After a mirror was completed. */
function Moved({ node }: { readonly node: string }) {
  return (
    <p class="banner" role="status" data-testid="disk-moved">
      The disk has moved over to node <code>{node}</code>: what is written goes there, and
      disk.qcow2 stays as it was then. Reload the page to be back on disk.qcow2; the other image is
      then under Other images, to be downloaded.
    </p>
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
