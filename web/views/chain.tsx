/** The chain as it is now: one box for each image, base first, arrows to the backing file. */

import type { App } from "../app.ts";
import { type ChainBox, isLocal } from "../chain.ts";
import type { Job } from "../fold.ts";
import { formatBytes, percentOf } from "../format.ts";

export function ChainPanel({ app }: { readonly app: App }) {
  const boxes = app.boxes.value;
  const isWhole = app.isWhole.value;
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
            <Image box={box} job={n === boxes.length - 1 ? app.job.value : undefined} />
          </li>
        ))}
      </ol>
      {app.hasMoved.value ? <Moved app={app} /> : null}
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

/** After a mirror was completed, or with an overlay over the disk. */
function Moved({ app }: { readonly app: App }) {
  const name = <code>{app.boxes.value.at(-1)?.name}</code>;
  return (
    <p class="banner" role="status" data-testid="disk-moved">
      {app.isInChain("disk") ? (
        <>
          What is written goes to {name}, an overlay over disk.qcow2. A commit, under Jobs, brings
          it down into disk.qcow2. After a reload the page is on disk.qcow2 alone: open the overlay
          and put it over the disk again before you write.
        </>
      ) : (
        <>
          The disk has moved over to {name}: what is written goes there, and disk.qcow2 stays as it
          was then. Reload the page to be back on disk.qcow2; the other image is then under Other
          images, to be downloaded.
        </>
      )}
    </p>
  );
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
