/** Whether the window has the width of a phone: hex dumps then have 8 bytes in a row, not 16. */

import { signal } from "@preact/signals";

const query = matchMedia("(max-width: 640px)");

export const isNarrow = signal(query.matches);

query.addEventListener("change", () => {
  isNarrow.value = query.matches;
});
