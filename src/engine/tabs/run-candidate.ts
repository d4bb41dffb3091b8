/**
 * The worker's end of a tab: a candidate in this worker's scope, and the page's words to it.
 *
 *     runCandidate(async (opening) => engineRealm(await …, opening));
 *
 * The worker's name is its id.
 */

import { browserHost } from "./browser.ts";
import { Candidate } from "./candidate.ts";
import type { OpenRealm } from "./realm.ts";

/** From the page. */
export type ToCandidate =
  | {
      readonly type: "tab-dial";
      readonly epoch: number;
      readonly client: string;
      readonly service: string;
      readonly ports: readonly MessagePort[];
    }
  | { readonly type: "tab-hidden"; readonly isHidden: boolean }
  | { readonly type: "tab-leave" };

/** To the page: it is out, or could not write everything. */
export interface CandidateLeft {
  readonly type: "tab-left";
  readonly error: string | null;
}

export function runCandidate(open: OpenRealm): void {
  const candidate = new Candidate(browserHost(), self.name, open);
  addEventListener("message", ({ data }: MessageEvent<ToCandidate>) => {
    // Extensions and tools post messages, too.
    if (data?.type === "tab-dial") {
      candidate.accept(data.epoch, data.client, data.service, data.ports);
    } else if (data?.type === "tab-hidden") candidate.setHidden(data.isHidden);
    else if (data?.type === "tab-leave") void leave(candidate);
  });
}

async function leave(candidate: Candidate): Promise<void> {
  let error: string | null = null;
  try {
    await candidate.leave();
  } catch (reason) {
    error = reason instanceof Error ? reason.message : String(reason);
  }
  postMessage({ type: "tab-left", error } satisfies CandidateLeft);
}
