import { judge } from "./judged.ts";
import { allocation } from "./kinds/allocation.ts";

judge(allocation);
