/** One sector of the disk, to look at and to change, job or no job. */

import { batch, type Signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { App, Stage } from "../app.ts";
import { formatBytes, parseSize } from "../format.ts";
import { dumpRows, hexLines, parseHex } from "../hex.ts";
import { isNarrow } from "../narrow.ts";
import { Button, ProblemAt } from "./parts.tsx";

type Open = Extract<Stage, { kind: "open" }>;
type Unit = "bytes" | "sectors";
type Mode = "hex" | "text";

const SECTOR = 512;

/** What was read: `bytes` at `offset`; fewer than a sector at the end of an odd disk. */
interface Sector {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export function SectorPanel({ app, stage }: { readonly app: App; readonly stage: Open }) {
  const { device } = stage;
  const sector = useSignal<Sector | undefined>(undefined);
  const unit = useSignal<Unit>("bytes");
  const asked = useSignal("0");
  const mode = useSignal<Mode>("hex");
  const text = useSignal("");
  const busy = app.busy.value.has("sector");
  const last = Math.max(Math.floor((device.size - 1) / SECTOR), 0) * SECTOR;

  const show = async (offset: number) => {
    const bytes = await device.read(offset, Math.min(SECTOR, device.size - offset));
    // Dump and editor change together: the editor's hex is what is on the disk.
    batch(() => {
      sector.value = { offset, bytes };
      app.sectorOffset.value = offset;
      asked.value = String(unit.value === "bytes" ? offset : offset / SECTOR);
      text.value = editorText(mode.value, bytes);
    });
  };
  const go = (offset: number) => void app.actions.act("sector", () => show(offset));
  const goAsked = () => {
    const number = parseSize(asked.value);
    void app.actions.act("sector", async () => {
      const offset =
        number === undefined ? Number.NaN : number * (unit.value === "bytes" ? 1 : SECTOR);
      if (!(offset >= 0 && offset < device.size)) {
        throw new RangeError(
          `'${asked.value}' is ${number === undefined ? "no number" : "not on the disk"}: write 0 to ${unit.value === "bytes" ? device.size - 1 : last / SECTOR}, also as 0x200 or 4k`,
        );
      }
      await show(Math.floor(offset / SECTOR) * SECTOR);
    });
  };
  const write = (bytes: Uint8Array<ArrayBuffer>, at: number) => {
    void app.actions.act("sector", async () => {
      await device.write(at, bytes);
      await device.flush();
      await show(at - (at % SECTOR));
    });
  };
  // A disk that was opened again, or loaded from a snapshot, is read again, at the same place.
  useEffect(() => go(app.sectorOffset.value), [device, app.view.diskLoads.value]);

  const at = sector.value?.offset ?? 0;
  return (
    <section class="panel" aria-labelledby="sector-title">
      <h2 id="sector-title">
        Sector {at / SECTOR} <small>of {formatBytes(device.size)}</small>
      </h2>
      <form
        class="buttons"
        onSubmit={(event) => {
          event.preventDefault();
          goAsked();
        }}
      >
        <Button disabled={busy || at === 0} onClick={() => go(at - SECTOR)}>
          ← Previous
        </Button>
        <label>
          <span class="visually-hidden">Offset</span>
          <input
            type="text"
            inputMode="numeric"
            size={14}
            data-testid="sector-offset"
            value={asked.value}
            onInput={(event) => {
              asked.value = event.currentTarget.value;
            }}
          />
        </label>
        <select
          aria-label="Unit of the offset"
          value={unit.value}
          onChange={(event) => {
            unit.value = event.currentTarget.value as Unit;
            asked.value = String(unit.value === "bytes" ? at : at / SECTOR);
          }}
        >
          <option value="bytes">bytes</option>
          <option value="sectors">sectors</option>
        </select>
        <button type="submit" data-testid="sector-go" disabled={busy}>
          Go
        </button>
        <Button disabled={busy || at >= last} onClick={() => go(at + SECTOR)}>
          Next →
        </Button>
      </form>
      <ProblemAt app={app} place="sector" />
      {sector.value === undefined ? null : (
        <>
          <Dump sector={sector.value} />
          <Editor
            sector={sector.value}
            mode={mode}
            text={text}
            busy={busy}
            readOnly={stage.readOnly}
            onWrite={write}
          />
        </>
      )}
    </section>
  );
}

function Dump({ sector }: { readonly sector: Sector }) {
  const rows = dumpRows(sector.bytes, sector.offset, isNarrow.value ? 8 : 16);
  return (
    <pre
      class="dump"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, and keys must reach it
      tabIndex={0}
      data-testid="sector-view"
      data-offset={sector.offset}
    >
      {rows.map((row) => (
        <span key={row.offset} class={/^[0 ]*$/.test(row.hex) ? "row zero" : "row"}>
          <span class="at">{row.offset}</span>
          {"  "}
          {row.hex.padEnd(isNarrow.value ? 23 : 47)}
          {"  "}
          <span class="ascii">|{row.ascii}|</span>
          {"\n"}
        </span>
      ))}
    </pre>
  );
}

interface EditorProps {
  readonly sector: Sector;
  readonly mode: Signal<Mode>;
  readonly text: Signal<string>;
  readonly busy: boolean;
  readonly readOnly: boolean;
  readonly onWrite: (bytes: Uint8Array<ArrayBuffer>, at: number) => void;
}

/**
 * What is typed goes to the disk from the sector's first byte on, or from the byte asked for: as
 * hex, where the sector is the text to start from, or as text.
 */
function Editor({ sector, mode, text, busy, readOnly, onWrite }: EditorProps) {
  const skip = useSignal("0");
  const parsed = mode.value === "hex" ? parseHex(text.value) : new TextEncoder().encode(text.value);
  const from = parseSize(skip.value);
  const room = from === undefined ? 0 : sector.bytes.length - from;
  const wrong = problemWith(parsed, from, room);
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        if (typeof parsed !== "string" && from !== undefined) {
          onWrite(parsed, sector.offset + from);
        }
      }}
    >
      <p class="buttons">
        <strong>Write</strong>
        {(["hex", "text"] as const).map((choice) => (
          <label key={choice}>
            <input
              type="radio"
              name="edit-mode"
              value={choice}
              checked={mode.value === choice}
              onChange={() => {
                mode.value = choice;
                text.value = editorText(choice, sector.bytes);
              }}
            />{" "}
            {choice === "hex" ? "as hex" : "as text"}
          </label>
        ))}
        <label>
          from byte{" "}
          <input
            type="text"
            size={4}
            data-testid="sector-edit-from"
            value={skip.value}
            onInput={(event) => {
              skip.value = event.currentTarget.value;
            }}
          />
        </label>
      </p>
      <textarea
        rows={6}
        spellcheck={false}
        autocomplete="off"
        aria-label={mode.value === "hex" ? "Bytes to write, as hex" : "Text to write"}
        aria-describedby="edit-help"
        data-testid="sector-edit"
        placeholder={mode.value === "hex" ? "de ad be ef" : "Hello, disk"}
        value={text.value}
        onInput={(event) => {
          text.value = event.currentTarget.value;
        }}
      />
      <p class="buttons">
        <button
          type="submit"
          data-testid="sector-write"
          disabled={busy || readOnly || wrong !== undefined}
        >
          Write {typeof parsed === "string" ? "" : formatBytes(parsed.length)}
        </button>
        <span id="edit-help" class="hint">
          {readOnly ? "The disk is open for reading only." : (wrong ?? "")}
        </span>
      </p>
    </form>
  );
}

/** What editing starts from. */
function editorText(mode: Mode, bytes: Uint8Array): string {
  return mode === "hex" ? hexLines(bytes, isNarrow.value ? 8 : 16) : "";
}

function problemWith(
  parsed: Uint8Array | string,
  from: number | undefined,
  room: number,
): string | undefined {
  if (typeof parsed === "string") return parsed;
  if (from === undefined || room <= 0) return "Start at a byte of this sector: 0 to 511";
  if (parsed.length === 0) return "Nothing to write yet";
  return parsed.length > room
    ? `${parsed.length - room} bytes too many for this sector`
    : undefined;
}
