/** Each call of calls.ts: its checks that need no domain, which turn it takes (turn.ts), and what it does then. */

import type { CallName } from "../calls.ts";
import { BACKUP_HANDLERS } from "./backups.ts";
import { BLOCK_JOB_HANDLERS } from "./block-jobs.ts";
import { DOMAIN_HANDLERS } from "./domains.ts";
import type { Handlers } from "./turn.ts";

export const HANDLERS: Handlers<CallName> = {
  ...DOMAIN_HANDLERS,
  ...BLOCK_JOB_HANDLERS,
  ...BACKUP_HANDLERS,
};
