/** That the browser may take the disk away, for as long as it has not promised to keep it. */

import type { App } from "../app.ts";
import type { Keeping } from "../keeping.ts";
import { Button, ProblemAt } from "./parts.tsx";

interface NotKeptProps {
  readonly app: App;
  readonly keeping: Keeping;
}

export function NotKept({ app, keeping }: NotKeptProps) {
  const promised = keeping.promised.value;
  if (promised === true || promised === undefined) return null;
  return (
    <section class="banner" role="status" data-testid="not-kept">
      <p>
        This browser has not promised to keep the disk: it may clear it away when space gets short,
        and if this is a private window, the disk is gone when it is closed. Download what matters.
      </p>
      <ProblemAt app={app} place="keeping" />
      {keeping.isRefused.value ? (
        <p class="hint">
          Asked, it said no. Some browsers say yes once the page is a bookmark, or is installed.
        </p>
      ) : null}
      {promised === null ? null : (
        <p class="buttons">
          <Button
            testId="keep"
            disabled={app.busy.value.has("keeping")}
            onClick={() => void app.actions.act("keeping", () => keeping.ask())}
          >
            Ask it to keep the disk
          </Button>
        </p>
      )}
    </section>
  );
}
