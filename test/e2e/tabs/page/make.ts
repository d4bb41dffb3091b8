/** The domain that all tabs share, made by the first: an empty overlay over an empty image. */

import type { Connection } from "../../../../src/domain/client.ts";
import type { CreateOptions } from "../../../../src/engine/client.ts";
import type { SharedApi } from "../../../../src/engine/tabs/connect.ts";
import { DISK_BYTES, DOMAIN, IMAGES } from "../plan.ts";

const sourceOf = (filename: string) => ({ driver: "opfs", filename }) as const;

export async function makeDomain(client: SharedApi, domains: Connection): Promise<void> {
  const there = await domains.listAllDomains();
  if (there.length > 0) return;
  const [base, top] = IMAGES;
  await makeImage(client, base, {});
  await makeImage(client, top, { "backing-file": base, "backing-fmt": "qcow2" });
  const backingStore = { format: "qcow2", source: sourceOf(base), backingStore: null } as const;
  const disk = { target: "vda", format: "qcow2", source: sourceOf(top), backingStore } as const;
  const domain = await domains.define({ name: DOMAIN, disks: [disk] });
  await domain.create();
}

async function makeImage(client: SharedApi, name: string, more: object): Promise<void> {
  await create(client, { ...sourceOf(name), size: 0 });
  const size = { size: DISK_BYTES, "cluster-size": 4096 };
  await create(client, { driver: "qcow2", file: sourceOf(name), ...size, ...more });
}

async function create(client: SharedApi, options: CreateOptions): Promise<void> {
  await client.execute("blockdev-create", { "job-id": "make", options });
  const { error } = await client.waitForJob("make", "concluded");
  if (error !== undefined) throw new Error(error);
  await client.execute("job-dismiss", { id: "make" });
}
