import { judge } from "./judged.ts";
import { oddSizes } from "./kinds/odd-sizes.ts";

judge(oddSizes);
