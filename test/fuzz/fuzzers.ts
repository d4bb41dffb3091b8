/** All fuzzers: the one place where a new one is listed. `npm run fuzz` knows each by its name. */

import type { Fuzzer } from "./fuzzer.ts";
import { nbdFuzzer, nbdSocketsFuzzer } from "./nbd/fuzz.ts";
import { qcow2Fuzzer } from "./qcow2/fuzz.ts";
import { qmpFuzzer } from "./qmp/fuzz.ts";

export const FUZZERS: readonly Fuzzer[] = [qmpFuzzer, nbdFuzzer, nbdSocketsFuzzer, qcow2Fuzzer];
