import { judge } from "./judged.ts";
import { bitmaps } from "./kinds/bitmaps.ts";
import { snapshots } from "./kinds/snapshots.ts";

judge([...snapshots, ...bitmaps]);
