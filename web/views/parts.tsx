/** Small parts that all panels use. */

import type { ComponentChildren, RefObject } from "preact";
import { useId } from "preact/hooks";
import type { Place } from "../actions.ts";
import type { App } from "../app.ts";
import type { Problem } from "../hints.ts";

interface ButtonProps {
  readonly onClick: () => void;
  readonly children: ComponentChildren;
  readonly testId?: string;
  readonly disabled?: boolean;
  /** Why it is disabled, or what it does. */
  readonly title?: string | undefined;
  readonly kind?: "primary" | "danger";
}

export function Button({ onClick, children, testId, disabled, title, kind }: ButtonProps) {
  return (
    <button
      type="button"
      class={kind}
      data-testid={testId}
      disabled={disabled}
      title={title}
      onClick={onClick}
    >
      {children}
    </button>
  );
}

/** The last error of what was started at `place`, if it has not been put right. */
export function ProblemAt({ app, place }: { readonly app: App; readonly place: Place }) {
  const problem = app.problems.value[place];
  return problem === undefined ? null : <ProblemBox problem={problem} />;
}

export function ProblemBox({ problem }: { readonly problem: Problem }) {
  return (
    <div class="problem" role="alert" data-testid="error" data-errno={problem.errno}>
      <p>{problem.text}</p>
      {problem.hint === undefined ? null : <p class="hint">{problem.hint}</p>}
    </div>
  );
}

interface BarProps {
  readonly label: string;
  readonly percent: number;
  readonly offset: number;
  readonly len: number;
  readonly tone?: string | undefined;
  readonly testId?: string;
}

/** A progress bar: whole percent for people, bytes for programs. */
export function Bar({ label, percent, offset, len, tone, testId }: BarProps) {
  return (
    <div
      class={`bar ${tone ?? ""}`}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={percent}
      data-testid={testId}
      data-offset={offset}
      data-len={len}
    >
      <div class="fill" style={{ transform: `scaleX(${len === 0 ? 1 : offset / len})` }} />
    </div>
  );
}

interface ConfirmProps {
  /** Whoever asks calls its showModal(). */
  readonly dialog: RefObject<HTMLDialogElement | null>;
  readonly title: string;
  /** What goes, and what stays. */
  readonly children: ComponentChildren;
  readonly testId?: string;
  readonly onDelete: () => void;
}

/** Asks before something goes for good. */
export function ConfirmDialog({ dialog, title, children, testId, onDelete }: ConfirmProps) {
  const titleId = useId();
  return (
    <dialog ref={dialog} aria-labelledby={titleId}>
      <form method="dialog">
        <h2 id={titleId}>{title}</h2>
        <p>{children}</p>
        <p class="choices">
          <button type="submit">Keep it</button>
          <button
            type="button"
            class="danger"
            data-testid={testId}
            onClick={() => {
              dialog.current?.close();
              onDelete();
            }}
          >
            Delete
          </button>
        </p>
      </form>
    </dialog>
  );
}
