/** Before there is a disk: what is offered, and the one click. */

import type { App } from "../app.ts";
import { formatBytes } from "../format.ts";
import type { Template } from "../template.ts";
import { FilePicker } from "./file-picker.tsx";
import { Button, ProblemAt } from "./parts.tsx";

export function StartPanel({ app }: { readonly app: App }) {
  const template = app.template.value;
  return (
    <section
      class="panel start"
      aria-labelledby="start-title"
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        const [file] = event.dataTransfer?.files ?? [];
        if (file !== undefined) void app.tryFile(file);
      }}
    >
      <h2 id="start-title">A disk from a web server, whole in this browser</h2>
      <p>
        One click makes an empty disk image in this browser's storage, on top of a template that
        stays on the server. The disk reads at once: what it does not have yet comes from the
        template. In the background a <code>block-stream</code> job pulls in the rest, and when it
        is done the disk needs no server any more.
      </p>
      {template === undefined ? <NoTemplate app={app} /> : <Offer app={app} template={template} />}
      <p class="buttons local">
        <FilePicker
          label="Use a file of yours …"
          testId="pick-file"
          disabled={app.busy.value.has("disk")}
          onPick={(file) => void app.tryFile(file)}
        />
        <span class="hint">or drop it here: a whole qcow2 image, or a raw one</span>
      </p>
      <ProblemAt app={app} place="disk" />
    </section>
  );
}

function Offer({ app, template }: { readonly app: App; readonly template: Template }) {
  const images = [...template.chain].reverse();
  return (
    <>
      <p class="offer">
        <span class="name">{template.name}</span>
        {template.virtualSize === undefined ? null : (
          <span class="hint">{formatBytes(template.virtualSize)} disk</span>
        )}
        {template.demo ? <span class="chip">demo</span> : null}
        <code class="drawing">
          {images.map((image) => `[${image.source.driver} ${image.name}]`).join(" <── ")}
          {` <── [${app.store} disk.qcow2]`}
        </code>
      </p>
      <Button
        kind="primary"
        testId="try-it"
        disabled={app.busy.value.has("disk")}
        onClick={() => void app.tryIt(template)}
      >
        Try it
      </Button>
    </>
  );
}

function NoTemplate({ app }: { readonly app: App }) {
  if (app.busy.value.has("template")) return <p role="status">Asking the server …</p>;
  return (
    <div class="problem" role="alert" data-testid="error">
      <p>This server offers no template: {app.problems.value.template?.text}.</p>
      <p class="hint">
        Start it with <code>npm start</code>, or <code>npm start -- path/to/image</code> for an
        image of your own.
      </p>
      <Button onClick={() => void app.loadTemplate()}>Look again</Button>
    </div>
  );
}
