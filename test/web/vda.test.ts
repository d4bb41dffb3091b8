import { expect, test } from "vitest";
import { DomainError, type Tab } from "../../src/domain/client.ts";
import { Vda } from "../../web/vda.ts";

const PAGE = { name: "page", state: 1, disks: [{ target: "vda", chain: [] }] };

test("a disk that another tab deletes while it is looked at is one that is not there", async () => {
  const vda = new Vda(tabWith(() => new DomainError("NO_DOMAIN", "There is no domain 'page'")));
  await vda.refresh();
  expect(vda.info.value).toBeUndefined();
  expect(vda.checkpoints.value).toEqual([]);
});

test("any other error of a look is told", async () => {
  const vda = new Vda(tabWith(() => new DomainError("OPERATION_FAILED", "The engine is gone")));
  await expect(vda.refresh()).rejects.toThrow("The engine is gone");
});

/** A tab whose domain is listed, and of which nothing more can be heard. */
function tabWith(error: () => DomainError): Tab {
  const fails = () => Promise.reject(error());
  const domain = { listBlockJobs: fails, listAllCheckpoints: fails };
  const domains = { domain: () => domain, listAllDomains: async () => [PAGE] };
  return { domains } as unknown as Tab;
}
