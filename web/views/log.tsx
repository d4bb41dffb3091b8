/** What the page says to the engine and hears from it: the same QMP that QEMU speaks. */

import { useSignal } from "@preact/signals";
import type { QmpLog } from "../log.ts";
import { Button } from "./parts.tsx";

/** As many as can be drawn in a few milliseconds; the console can have all. */
const SHOWN_MAX = 150;

export function LogPanel({ log }: { readonly log: QmpLog }) {
  const isOpen = useSignal(false);
  const showQueries = useSignal(false);
  return (
    <details
      class="panel log"
      data-testid="qmp-log"
      onToggle={(event) => {
        isOpen.value = event.currentTarget.open;
      }}
    >
      <summary>
        <h2>QMP</h2>
        <span class="hint">what this page and the engine say to each other</span>
      </summary>
      {isOpen.value ? (
        <>
          <p class="buttons">
            <label>
              <input
                type="checkbox"
                checked={showQueries.value}
                onChange={(event) => {
                  showQueries.value = event.currentTarget.checked;
                }}
              />{" "}
              queries, too
            </label>
            <Button onClick={() => log.clear()}>Clear</Button>
            <span class="hint">
              In the console: <code>await blocktab.client.execute("query-jobs")</code>
            </span>
          </p>
          <Entries log={log} showQueries={showQueries.value} />
        </>
      ) : null}
    </details>
  );
}

function Entries({ log, showQueries }: { readonly log: QmpLog; readonly showQueries: boolean }) {
  const shown = log.entries.value.filter((entry) => showQueries || !entry.isQuery);
  return (
    <ol class="entries" reversed>
      {shown
        .slice(-SHOWN_MAX)
        .reverse()
        .map((entry) => (
          <li key={entry.number} class={entry.direction}>
            <span title={entry.direction}>{entry.direction === "sent" ? "→" : "←"}</span>
            <code>{entry.text}</code>
          </li>
        ))}
    </ol>
  );
}
