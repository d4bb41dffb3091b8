/** Other images in this browser: places for copies, to be opened, closed and downloaded. */

import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import type { App } from "../app.ts";
import { formatBytes, parseSize } from "../format.ts";
import type { StoredImage } from "../images.ts";
import { Button, ConfirmDialog, ProblemAt } from "./parts.tsx";

export function ImagesPanel({ app }: { readonly app: App }) {
  const images = app.images.all.value;
  const busy = app.busy.value.has("images");
  return (
    <section class="panel" aria-labelledby="images-title" data-testid="images">
      <h2 id="images-title">Images</h2>
      <p class="hint">
        Image files in this browser. An open one is a node, for jobs to work with; a closed one can
        be downloaded.
      </p>
      <ul class="images">
        {images.map((image) => (
          <li key={image.filename} data-testid={`image-${image.filename}`}>
            <Row app={app} image={image} busy={busy} />
          </li>
        ))}
      </ul>
      <NewImage app={app} busy={busy} />
      <ProblemAt app={app} place="images" />
    </section>
  );
}

interface RowProps {
  readonly app: App;
  readonly image: StoredImage;
  readonly busy: boolean;
}

function Row({ app, image, busy }: RowProps) {
  const { filename, node, size } = image;
  return (
    <div class="buttons">
      <code>{filename}</code>
      <span class="hint">
        {formatBytes(size)}
        {node === undefined ? "" : `, open as node ${node}`}
      </span>
      {node === undefined ? (
        <ClosedButtons app={app} filename={filename} busy={busy} />
      ) : (
        <OpenButtons app={app} image={image} node={node} busy={busy} />
      )}
    </div>
  );
}

interface ClosedProps {
  readonly app: App;
  readonly filename: string;
  readonly busy: boolean;
}

function ClosedButtons({ app, filename, busy }: ClosedProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  return (
    <>
      <Button disabled={busy} onClick={() => void app.images.open(filename)}>
        Open
      </Button>
      <Button disabled={busy} onClick={() => void app.images.download(filename)}>
        Download
      </Button>
      <Button kind="danger" disabled={busy} onClick={() => dialog.current?.showModal()}>
        Delete …
      </Button>
      <ConfirmDialog
        dialog={dialog}
        title="Delete this image?"
        testId={`delete-${filename}`}
        onDelete={() => void app.images.remove(filename)}
      >
        {filename} goes for good.
      </ConfirmDialog>
    </>
  );
}

function OpenButtons({ app, image, node, busy }: RowProps & { readonly node: string }) {
  if (app.view.isInChain(node)) return <span class="hint">part of the page's disk: see Chain</span>;
  if (image.isDomains) return <span class="hint">in use by a job of vda</span>;
  return (
    <Button
      disabled={busy || image.isUsed}
      title={image.isUsed ? "Another image stands on it" : "Then it can be downloaded"}
      onClick={() => void app.images.close(node)}
    >
      Close
    </Button>
  );
}

function NewImage({ app, busy }: { readonly app: App; readonly busy: boolean }) {
  const taken = new Set(app.images.all.value.map(({ filename }) => filename));
  const typed = useSignal<string | undefined>(undefined);
  const size = useSignal("");
  const isOverlay = useSignal(false);
  const name = typed.value ?? freeName(taken);
  const bytes = size.value === "" ? app.view.diskBytes.value : parseSize(size.value);
  const why = taken.has(name) ? "There is a file of that name" : nameProblem(name);
  return (
    <form
      class="fields"
      onSubmit={(event) => {
        event.preventDefault();
        if (bytes === undefined) return;
        typed.value = undefined;
        void (isOverlay.value ? app.images.makeOverlay(name) : app.images.make(name, bytes));
      }}
    >
      <p class="field">
        <label for="image-name">file</label>
        <input
          type="text"
          size={16}
          id="image-name"
          data-testid="image-name"
          value={name}
          aria-invalid={why !== undefined}
          onInput={(event) => {
            typed.value = event.currentTarget.value;
          }}
        />
      </p>
      <p class="field">
        <label for="image-kind">as</label>
        <select
          id="image-kind"
          data-testid="image-kind"
          onChange={(event) => {
            isOverlay.value = event.currentTarget.value === "overlay";
          }}
        >
          <option value="empty">an empty image</option>
          <option value="overlay">an overlay over the disk</option>
        </select>
      </p>
      {isOverlay.value ? null : (
        <p class="field">
          <label for="image-size">size</label>
          <input
            type="text"
            size={10}
            id="image-size"
            data-testid="image-size"
            placeholder="as the disk"
            value={size.value}
            aria-invalid={bytes === undefined}
            onInput={(event) => {
              size.value = event.currentTarget.value;
            }}
          />
        </p>
      )}
      <button
        type="submit"
        data-testid="image-make"
        disabled={busy || bytes === undefined || why !== undefined}
      >
        Make it
      </button>
      <p class="hint">
        {why ??
          (isOverlay.value
            ? "It takes what is written from then on, until a commit brings that down again."
            : "A qcow2 that reads as zeroes: the target of a backup.")}
      </p>
    </form>
  );
}

/** "copy.qcow2", or the first number that is free. */
function freeName(taken: ReadonlySet<string>): string {
  for (let n = 1; ; n++) {
    const name = n === 1 ? "copy.qcow2" : `copy${n}.qcow2`;
    if (!taken.has(name)) return name;
  }
}

function nameProblem(name: string): string | undefined {
  if (/^[A-Za-z0-9][\w.-]*$/.test(name)) return undefined;
  return "A name is letters, digits, dots, dashes and underscores, like copy.qcow2";
}
