import { judge } from "./judged.ts";
import { sizes } from "./kinds/sizes.ts";

judge(sizes);
