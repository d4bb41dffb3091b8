/** Strings of JSON as QEMU writes them: ASCII only (qobject/json-writer.c). */

/** Everything that cannot stand for itself: quotes, controls, all that is not ASCII. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
const ESCAPED = /["\\\u0000-\u001f\u007f-\uffff]/g;
/** Half characters and no characters: QEMU, too, writes the replacement character for them. */
const UNWRITABLE = /[\p{Cs}\p{Noncharacter_Code_Point}]/gu;
const SHORT = new Map([
  ['"', '\\"'],
  ["\\", "\\\\"],
  ["\b", "\\b"],
  ["\f", "\\f"],
  ["\n", "\\n"],
  ["\r", "\\r"],
  ["\t", "\\t"],
]);

/** Text as a JSON string, in quotes. */
export function jsonString(text: string): string {
  const escaped = text.replace(UNWRITABLE, "\ufffd").replace(ESCAPED, escapeOf);
  return `"${escaped}"`;
}

function escapeOf(character: string): string {
  const code = character.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
  return SHORT.get(character) ?? `\\u${code}`;
}
