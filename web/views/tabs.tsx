/** Which tab has the disks, and what became of everything when one that had them was lost. */

import type { SharedState } from "../../src/domain/client.ts";
import type { App } from "../app.ts";
import { describe, isMissing, isWorthTelling } from "../recovery.ts";
import { Button, ProblemAt } from "./parts.tsx";

export function Role({ state }: { readonly state: SharedState }) {
  return (
    <span
      class={`chip role ${state.phase === "serving" ? "" : "waiting"}`}
      role="status"
      data-testid="role"
      data-role={state.role}
      data-phase={state.phase}
    >
      {textOf(state)}
    </span>
  );
}

function textOf({ phase, role, text }: SharedState): string {
  if (phase !== "serving") return text === "" ? "Taking over …" : `${text} …`;
  return role === "owner"
    ? "This tab holds the disks"
    : "Another tab holds the disks; this one works through it";
}

export function NotShared() {
  return (
    <p class="banner" role="status">
      This browser has nothing that tabs could share the disk by (Web Locks, BroadcastChannel): use
      one tab at a time. Jobs end with the page; what they have done stays.
    </p>
  );
}

const GIVE_UP =
  "Jobs that wait for it end, and writes that were not flushed to it are lost; image files stay";

export function RecoveryBox({ app }: { readonly app: App }) {
  const told = app.aftermath.recovered.value.filter(isWorthTelling);
  if (told.length === 0) return null;
  const busy = app.busy.value.has("recovery");
  const isOpen = told.some(isMissing);
  return (
    <section class="banner recovery" role="status" data-testid="recovery">
      <p>The tab that had the disks was closed, reloaded or lost. Since then:</p>
      <ul>
        {told.map((one) => (
          <li key={`${one.kind} ${one.name}`}>{describe(one)}</li>
        ))}
      </ul>
      <ProblemAt app={app} place="recovery" />
      <p class="buttons">
        {isOpen ? (
          <Button disabled={busy} onClick={() => void app.aftermath.retryRecovery()}>
            Try again
          </Button>
        ) : null}
        <Button
          testId="recovery-dismiss"
          disabled={busy}
          title={isOpen ? GIVE_UP : undefined}
          {...(isOpen && { kind: "danger" as const })}
          onClick={() => void app.aftermath.dismissRecovery()}
        >
          {isOpen ? "Give up what is missing" : "Dismiss"}
        </Button>
      </p>
    </section>
  );
}
