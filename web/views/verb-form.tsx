/** One of libvirt's calls, with its arguments. */

import type { App } from "../app.ts";
import { TARGET } from "../define.ts";
import { type Kept, nameOf } from "../download.ts";
import type { FieldValues } from "../job-forms.ts";
import { VERBS, type Verb, type VerbField, wrongVerbFields } from "../verbs.ts";
import { type Field, FieldsForm } from "./fields.tsx";

export function VerbForm({ app }: { readonly app: App }) {
  return (
    <FieldsForm
      title="Call a verb"
      what="verb"
      ids={{ form: "call-verb", choice: "verb", field: "verb", submit: "verb-call" }}
      names={VERBS.map(({ name }) => name)}
      entryOf={(name) => {
        const { about, fields } = verbOf(name);
        return {
          name,
          about,
          fields: fields.map((field) => asField(field, app)),
          label: `${name} ${TARGET}`,
          defaults: defaultsOf(fields, app),
        };
      }}
      wrongFields={(name, values) => wrongVerbFields(verbOf(name), values)}
      busy={app.busy.value.has("verbs")}
      submit={(name, values) =>
        app.callVerb("verbs", () => verbOf(name).call(app.vda.domain, values, app.store))
      }
    />
  );
}

function verbOf(name: string): Verb {
  return VERBS.find((verb) => verb.name === name)!;
}

function asField(field: VerbField, app: App): Field {
  const { name, kind, required } = field;
  switch (kind) {
    case "layer":
    case "checkpoint":
      return { name, kind: "choice", none: field.none ?? "", choices: choicesOf(field, app) };
    case "speed":
      return { name, kind, none: "unlimited" };
    case "flag":
      return { name, kind, none: "" };
    default:
      return { name, kind: "text", none: required ? "" : "none" };
  }
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
