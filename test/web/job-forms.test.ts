import * as v from "valibot";
import { describe, expect, it } from "vitest";
import { check } from "../../src/base/check.ts";
import { COMMANDS } from "../../src/qmp/commands/index.ts";
import { nodeNameOf } from "../../web/images.ts";
import {
  argumentsOf,
  type FieldValues,
  freeId,
  JOB_FORMS,
  wrongFields,
} from "../../web/job-forms.ts";

/** Something in every field: of a choice, each one in turn. */
function fillings({ fields }: (typeof JOB_FORMS)[number]): FieldValues[] {
  const most = Math.max(
    ...fields.map((field) => (field.kind === "choice" ? field.choices.length : 1)),
  );
  return Array.from({ length: most }, (_, i) =>
    Object.fromEntries(
      fields.map((field) => {
        if (field.kind === "choice") return [field.name, field.choices[i % field.choices.length]!];
        return [field.name, field.kind === "speed" ? "4 MiB/s" : "some-name"];
      }),
    ),
  );
}

describe.each(JOB_FORMS.map((form) => [form.command, form] as const))(
  "the form for %s",
  (_, form) => {
    it("sends what the command takes, whatever is filled in", () => {
      const command = COMMANDS.get(form.command)!;
      for (const values of [...fillings(form), onlyRequired(form)]) {
        expect(wrongFields(form, values)).toEqual([]);
        const args = argumentsOf(form, "job0", values);
        expect(() => check(v.strictObject(command.args), args)).not.toThrow();
        if (!form.isNoJob) expect(args).toMatchObject({ "job-id": "job0" });
      }
    });

    it("knows which fields must not be empty", () => {
      expect(wrongFields(form, {})).toEqual(
        form.fields
          .filter((field) => "required" in field && field.required)
          .map(({ name }) => name),
      );
    });
  },
);

function onlyRequired(form: (typeof JOB_FORMS)[number]): FieldValues {
  const [first] = fillings(form);
  const required = form.fields.filter((field) => "required" in field && field.required);
  return Object.fromEntries(required.map(({ name }) => [name, first![name]!]));
}

it("refuses a speed that is none", () => {
  const form = JOB_FORMS.find(({ type }) => type === "backup")!;
  const filled = { device: "disk", target: "copy", sync: "full" };
  expect(wrongFields(form, { ...filled, speed: "fast" })).toEqual(["speed"]);
  expect(argumentsOf(form, "s", { ...filled, speed: "1M" })).toMatchObject({ speed: 2 ** 20 });
});

it("takes the first free number for an id", () => {
  expect(freeId("mirror", new Set(["mirror0", "mirror2"]))).toBe("mirror1");
});

it("makes a node's name out of any file's", () => {
  expect(nodeNameOf("copy.qcow2")).toBe("copy");
  expect(nodeNameOf("2026 büro.img")).toBe("i2026-b-ro");
  expect(nodeNameOf("a".repeat(80)).length).toBeLessThanOrEqual(26);
});
