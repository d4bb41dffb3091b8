/** There is a disk, and it could not be opened. */

import type { App } from "../app.ts";
import { FilePicker } from "./file-picker.tsx";
import { Button, ProblemAt } from "./parts.tsx";

export function ReopenPanel({ app }: { readonly app: App }) {
  return (
    <section class="panel" aria-labelledby="reopen-title">
      <h2 id="reopen-title">The disk in this browser is closed</h2>
      <ProblemAt app={app} place="disk" />
      <ul class="hint">
        {app.wantedFile === undefined ? null : (
          <li>
            The disk was made from a file of yours. Until it is whole, the page needs that file
            again whenever the tab that held the disks is reloaded or gone.
          </li>
        )}
        <li>
          If the disk is not whole yet it needs its template, the same as when the disk was made. If
          that is on a server, the server must run.
        </li>
        <li>If the template is gone for good, delete the disk below and start over.</li>
      </ul>
      <p class="buttons">
        <Button
          kind="primary"
          testId="retry"
          disabled={app.busy.value.has("disk")}
          onClick={() => void app.reopen()}
        >
          Try again
        </Button>
        {app.wantedFile === undefined ? null : (
          <FilePicker
            label={`Pick '${app.wantedFile}' again …`}
            testId="pick-again"
            disabled={app.busy.value.has("disk")}
            onPick={(file) => void app.reopenWith(file)}
          />
        )}
      </p>
    </section>
  );
}
