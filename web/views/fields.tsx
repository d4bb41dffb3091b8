/** A form that asks for one of several things to do, and for its arguments. */

import { useSignal } from "@preact/signals";
import type { FieldValues } from "../job-forms.ts";

export interface Entry {
  readonly name: string;
  readonly about: string;
  readonly fields: readonly Field[];
  /** On the button. */
  readonly label: string;
  /** What stands in fields until somebody writes there. */
  readonly defaults: FieldValues;
}

export interface Field {
  readonly name: string;
  readonly kind: "flag" | "text" | "speed" | "choice";
  /** Where nothing is written. */
  readonly none: string;
  readonly choices?: readonly { readonly value: string; readonly label?: string }[];
}

interface Props {
  readonly title: string;
  /** What the entries are, in a word. */
  readonly what: string;
  /** On the page: the start of each field's is `field`. */
  readonly ids: Readonly<Record<"form" | "choice" | "field" | "submit", string>>;
  readonly names: readonly string[];
  readonly entryOf: (name: string) => Entry;
  /** Names of fields that are not filled in as they must be. */
  readonly wrongFields: (name: string, values: FieldValues) => readonly string[];
  /** More than their names. */
  readonly hintOf?: (wrong: readonly string[]) => string;
  readonly busy: boolean;
  /** @returns whether it was done; if not, what was written stays */
  readonly submit: (name: string, values: FieldValues) => Promise<boolean>;
}

export function FieldsForm(props: Props) {
  const { ids, names, busy } = props;
  const name = useSignal(names[0]!);
  const written = useSignal<FieldValues>({});
  const entry = props.entryOf(name.value);
  const values = { ...entry.defaults, ...written.value };
  const wrong = props.wrongFields(name.value, values);
  const submit = async () => {
    const sent = written.value;
    const isDone = await props.submit(name.value, values);
    // Somebody may have written more meanwhile.
    if (isDone && written.value === sent) written.value = {};
  };
  return (
    <details class="start-job" data-testid={ids.form}>
      <summary>{props.title}</summary>
      <form
        class="fields"
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <p class="field">
          <label for={ids.choice}>{props.what}</label>
          <select
            id={ids.choice}
            data-testid={ids.choice}
            disabled={busy}
            value={name.value}
            onChange={(event) => {
              name.value = event.currentTarget.value;
              written.value = {};
            }}
          >
            {names.map((candidate) => (
              <option key={candidate}>{candidate}</option>
            ))}
          </select>
        </p>
        <p class="hint">{entry.about}</p>
        {entry.fields.map((field) => (
          <p key={`${entry.name}.${field.name}`} class="field">
            <label for={`${ids.field}-${field.name}`}>{field.name}</label>
            <Input
              field={field}
              id={`${ids.field}-${field.name}`}
              value={values[field.name] ?? ""}
              isWrong={wrong.includes(field.name)}
              set={(value) => {
                written.value = { ...written.value, [field.name]: value };
              }}
            />
          </p>
        ))}
        {wrong.length === 0 ? null : (
          <p class="hint">
            Still to be filled in: {wrong.join(", ")}.{props.hintOf?.(wrong)}
          </p>
        )}
        <button
          type="submit"
          class="primary"
          data-testid={ids.submit}
          disabled={busy || wrong.length > 0}
        >
          {entry.label}
        </button>
      </form>
    </details>
  );
}

interface InputProps {
  readonly field: Field;
  readonly id: string;
  readonly value: string;
  readonly isWrong: boolean;
  readonly set: (value: string) => void;
}

function Input({ field, id, value, isWrong, set }: InputProps) {
  const common = { id, "data-testid": id, "aria-invalid": isWrong };
  switch (field.kind) {
    case "flag":
      return (
        <input
          {...common}
          type="checkbox"
          checked={value !== ""}
          onChange={(event) => set(event.currentTarget.checked ? "on" : "")}
        />
      );
    case "choice":
      return (
        <select {...common} value={value} onChange={(event) => set(event.currentTarget.value)}>
          <option value="">{field.none}</option>
          {field.choices?.map(({ value: choice, label }) => (
            <option key={choice} value={choice}>
              {label ?? choice}
            </option>
          ))}
        </select>
      );
    default:
      return (
        <input
          {...common}
          type="text"
          size={14}
          placeholder={field.none}
          value={value}
          onInput={(event) => set(event.currentTarget.value)}
        />
      );
  }
}
