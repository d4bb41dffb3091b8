import { judge } from "./judged.ts";
import { jobs } from "./kinds/jobs.ts";

judge(jobs);
