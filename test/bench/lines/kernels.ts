/** The wasm kernels next to the same in plain TypeScript (test/kernel/twins.ts). */

import type { Line } from "../line.ts";
import type { Scan } from "../page/kernels.ts";

const ZEROES = "on the same 64 MiB of zeroes in wasm memory";
const LONG = "all clusters of the table side by side";
const SHORT = "a gap in the file after every third cluster";

export const KERNEL_LINES: readonly Line[] = [
  line("zero-64k", "isZero() in TypeScript, by 32-bit words,", `${ZEROES}, 64 KiB a time`),
  line("zero-1m", "isZero() in TypeScript, by 32-bit words,", `${ZEROES}, 1 MiB a time`),
  line("l2-long", "l2Run() in TypeScript", `over one table of 64 KiB, ${LONG}`),
  line("l2-short", "l2Run() in TypeScript", `over one table of 64 KiB, ${SHORT}`),
  line("l2-extended-long", "l2RunExtended() in TypeScript", `over one table of 64 KiB, ${LONG}`),
  line("l2-extended-short", "l2RunExtended() in TypeScript", `over one table of 64 KiB, ${SHORT}`),
];

function line(scan: Scan, what: string, where: string): Line {
  const isZero = scan.startsWith("zero");
  return {
    name: `kernel-${scan}`,
    unit: isZero ? "GB/s" : "M entries/s",
    reference: `${what} ${where}`,
    aim: { atLeast: 3 },
    runs: 9,
    async prepare(lab) {
      let expected: number | undefined;
      const measured = (side: "kernel" | "twin") => async () => {
        const { perMs, found } = await lab.call("kernelScan", { scan, side });
        expected ??= found;
        if (found !== expected) throw new Error(`${scan}: the ${side} found ${found} runs`);
        return perMs / (isZero ? 1e6 : 1e3);
      };
      return { warmUp: true, ours: measured("kernel"), theirs: measured("twin") };
    },
  };
}
