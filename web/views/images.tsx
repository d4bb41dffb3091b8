/** Other images in this browser: places for copies, to be opened, closed and downloaded. */

import { useSignal } from "@preact/signals";
import type { App } from "../app.ts";
import { formatBytes, parseSize } from "../format.ts";
import type { StoredImage } from "../images.ts";
import { Button, ProblemAt } from "./parts.tsx";

export function ImagesPanel({ app }: { readonly app: App }) {
  const images = app.images.value;
  const busy = app.busy.value.has("images");
  return (
    <section class="panel" aria-labelledby="images-title" data-testid="images">
      <h2 id="images-title">Other images</h2>
      <p class="hint">Files beside disk.qcow2 in this browser: targets of backups and mirrors.</p>
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
    <p class="buttons">
      <code>{filename}</code>
      <span class="hint">
        {formatBytes(size)}
        {node === undefined ? "" : `, open as node ${node}`}
      </span>
      {node === undefined ? (
        <>
          <Button disabled={busy} onClick={() => void app.openImage(filename)}>
            Open
          </Button>
          <Button disabled={busy} onClick={() => void app.downloadImage(filename)}>
            Download
          </Button>
          <Button kind="danger" disabled={busy} onClick={() => void app.removeImage(filename)}>
            Delete
          </Button>
        </>
      ) : (
        <Button disabled={busy} onClick={() => void app.closeImage(node)}>
          Close
        </Button>
      )}
    </p>
  );
}

function NewImage({ app, busy }: { readonly app: App; readonly busy: boolean }) {
  const name = useSignal("copy.qcow2");
  const size = useSignal("");
  const bytes = size.value === "" ? app.diskBytes.value : parseSize(size.value);
  const isNameWrong = !/^[A-Za-z0-9][\w.-]*$/.test(name.value) || name.value === "disk.qcow2";
  return (
    <form
      class="fields"
      onSubmit={(event) => {
        event.preventDefault();
        if (bytes !== undefined) void app.makeImage(name.value, bytes);
      }}
    >
      <label>
        file{" "}
        <input
          type="text"
          size={16}
          data-testid="image-name"
          value={name.value}
          aria-invalid={isNameWrong}
          onInput={(event) => {
            name.value = event.currentTarget.value;
          }}
        />
      </label>
      <label>
        size{" "}
        <input
          type="text"
          size={10}
          data-testid="image-size"
          placeholder="as the disk"
          value={size.value}
          aria-invalid={bytes === undefined}
          onInput={(event) => {
            size.value = event.currentTarget.value;
          }}
        />
      </label>
      <button
        type="submit"
        data-testid="image-make"
        disabled={busy || bytes === undefined || isNameWrong}
      >
        Make an empty qcow2
      </button>
    </form>
  );
}
