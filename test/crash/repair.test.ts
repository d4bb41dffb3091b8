import { judge } from "./judged.ts";
import { repairs } from "./kinds/repair.ts";

judge(repairs);
