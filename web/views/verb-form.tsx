/** One of libvirt's calls, with its arguments. */

import { useSignal } from "@preact/signals";
import type { App } from "../app.ts";
import { TARGET } from "../define.ts";
import { type Kept, nameOf } from "../download.ts";
import type { FieldValues } from "../job-forms.ts";
import { VERBS, type VerbField, wrongVerbFields } from "../verbs.ts";

export function VerbForm({ app }: { readonly app: App }) {
  const name = useSignal(VERBS[0]!.name);
  const values = useSignal<FieldValues>({});
  const verb = VERBS.find((candidate) => candidate.name === name.value)!;
  const withDefaults: FieldValues = { ...defaultsOf(verb.fields, app), ...values.value };
  const wrong = wrongVerbFields(verb, withDefaults);
  return (
    <details class="start-job">
      <summary>Call a verb</summary>
      <form
        class="fields"
        onSubmit={(event) => {
          event.preventDefault();
          void app.callVerb("verbs", () => verb.call(app.vda.domain, withDefaults, app.store));
          values.value = {};
        }}
      >
        <p class="field">
          <label for="verb">verb</label>
          <select
            id="verb"
            data-testid="verb"
            disabled={app.busy.value.has("verbs")}
            value={name.value}
            onChange={(event) => {
              name.value = event.currentTarget.value;
              values.value = {};
            }}
          >
            {VERBS.map((candidate) => (
              <option key={candidate.name}>{candidate.name}</option>
            ))}
          </select>
        </p>
        <p class="hint">{verb.about}</p>
        {verb.fields.map((field) => (
          <p key={`${verb.name}.${field.name}`} class="field">
            <label for={`verb-${field.name}`}>{field.name}</label>
            <Input
              app={app}
              field={field}
              value={withDefaults[field.name] ?? ""}
              isWrong={wrong.includes(field.name)}
              set={(value) => {
                values.value = { ...values.value, [field.name]: value };
              }}
            />
          </p>
        ))}
        {wrong.length === 0 ? null : <p class="hint">Still to be filled in: {wrong.join(", ")}.</p>}
        <button
          type="submit"
          class="primary"
          data-testid="verb-call"
          disabled={app.busy.value.has("verbs") || wrong.length > 0}
        >
          {verb.name} {TARGET}
        </button>
      </form>
    </details>
  );
}

interface InputProps {
  readonly app: App;
  readonly field: VerbField;
  readonly value: string;
  readonly isWrong: boolean;
  readonly set: (value: string) => void;
}

function Input({ app, field, value, isWrong, set }: InputProps) {
  const id = `verb-${field.name}`;
  const common = { id, "data-testid": id, "aria-invalid": isWrong };
  if (field.kind === "flag") {
    return (
      <input
        {...common}
        type="checkbox"
        checked={value !== ""}
        onChange={(event) => set(event.currentTarget.checked ? "on" : "")}
      />
    );
  }
  if (field.kind === "layer" || field.kind === "checkpoint") {
    return (
      <select {...common} value={value} onChange={(event) => set(event.currentTarget.value)}>
        <option value="">{field.none ?? ""}</option>
        {choicesOf(field, app).map(({ value: choice, label }) => (
          <option key={choice} value={choice}>
            {label}
          </option>
        ))}
      </select>
    );
  }
  return (
    <input
      {...common}
      type="text"
      size={14}
      placeholder={field.kind === "speed" ? "unlimited" : field.required ? "" : "none"}
      value={value}
      onInput={(event) => set(event.currentTarget.value)}
    />
  );
}

function choicesOf({ kind }: VerbField, app: App): { value: string; label: string }[] {
  if (kind === "checkpoint") {
    return app.vda.checkpoints.value.map(({ name }) => ({ value: name, label: name }));
  }
  const below = app.vda.info.value?.chain.slice(1) ?? [];
  return below.map(({ source }, n) => ({
    value: `${TARGET}[${n + 1}]`,
    label: `${nameOf(source as Kept)} (${TARGET}[${n + 1}])`,
  }));
}

/** A name that is free for a new file, and the only layer there is. */
function defaultsOf(fields: readonly VerbField[], app: App): FieldValues {
  const values: Record<string, string> = {};
  for (const field of fields) {
    if (field.kind === "file") values[field.name] = freeName(app);
    else if (field.kind === "layer" && field.required) {
      values[field.name] = choicesOf(field, app)[0]?.value ?? "";
    }
  }
  return values;
}

function freeName(app: App): string {
  const taken = new Set(app.images.all.value.map(({ filename }) => filename));
  for (let n = 1; ; n++) {
    const name = n === 1 ? "copy.qcow2" : `copy${n}.qcow2`;
    if (!taken.has(name)) return name;
  }
}
