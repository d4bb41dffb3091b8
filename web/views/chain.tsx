/** The chain as it is now: one box for each image, base first, arrows to the backing file. */

import type { App } from "../app.ts";
import { type ChainBox, isLocal } from "../chain.ts";
import type { Job } from "../fold.ts";
import { formatBytes, percentOf } from "../format.ts";

export function ChainPanel({ app }: { readonly app: App }) {
  const boxes = app.view.boxes.value;
  const isWhole = app.view.isWhole.value;
  return (
    <section class="panel" aria-labelledby="chain-title">
      <h2 id="chain-title">Chain</h2>
      <ol class="chain" data-testid="chain" data-images={boxes.length}>
        {boxes.map((box, n) => (
          <li key={box.nodeName} class="link">
            {n > 0 ? (
              <span class="arrow">
                {"<──"}
                <span class="visually-hidden"> is the backing file of</span>
              </span>
            ) : null}
            <Image box={box} job={n === boxes.length - 1 ? app.view.job.value : undefined} />
          </li>
        ))}
      </ol>
      <p class="hint">{isWhole ? wholeHint(boxes.length) : OVERLAY_HINT}</p>
    </section>
  );
}

const OVERLAY_HINT =
  "What the overlay, the last one, does not have yet is read from the images before it.";

function wholeHint(images: number): string {
  return images === 1
    ? "One local image: all of the disk is in this browser, and it needs no server."
    : `${OVERLAY_HINT} All of them are in this browser: it needs no server.`;
}

function Image({ box, job }: { readonly box: ChainBox; readonly job: Job | undefined }) {
  const size = box.actualSize === undefined ? "" : formatBytes(box.actualSize);
  return (
    <div class={`image ${isLocal(box) ? "local" : "remote"}`} data-node-name={box.nodeName}>
      <p class="name" title={box.filename}>
        <span class="bracket">[</span>
        <span class="store">{box.store}</span> {box.name}
        <span class="bracket">]</span>
      </p>
      <p class="facts">
        {box.format} · {formatBytes(box.virtualSize)} disk
        {isLocal(box) && box.readOnly ? " · read only" : ""}
      </p>
      <p class="facts">
        {size}{" "}
        {isLocal(box) ? "in this browser" : box.store === "http" ? "on the server" : "in the file"}
        {job !== undefined && job.len > 0 && job.outcome !== "completed"
          ? ` · ${percentOf(job.offset, job.len)} % streamed`
          : ""}
      </p>
      {box.snapshots.length === 0 ? null : (
        <p class="facts">snapshots: {box.snapshots.join(", ")}</p>
      )}
      {box.bitmaps.map(({ name, dirtyBytes }) => (
        <p key={name} class="facts">
          bitmap {name}: {formatBytes(dirtyBytes)} changed
        </p>
      ))}
    </div>
  );
}
