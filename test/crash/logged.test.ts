import { judge } from "./judged.ts";
import { logged } from "./kinds/logged.ts";

judge(logged);
