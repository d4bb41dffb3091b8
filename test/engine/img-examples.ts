/** The examples of docs/img.md for pages, as code that is compiled: test/img/docs.test.ts compares them. */

import { openImg } from "../../src/engine/img-client.ts";

export async function pack(picked: File) {
  const img = openImg();
  const files = { "in.raw": picked, "disk.qcow2": { opfs: "disk.qcow2" } };
  const packed = await img.run(
    ["convert", "-f", "raw", "-O", "qcow2", "-c", "in.raw", "disk.qcow2"],
    {
      files,
      onOutput: (stream, text) => console.log(stream, text),
      signal: AbortSignal.timeout(60_000),
    },
  );
  if (packed.status !== 0) throw new Error(packed.stderr);
  const info = await img.run(["info", "--output=json", "disk.qcow2"], { files });
  console.log(JSON.parse(info.stdout)["virtual-size"]);
  img.close();
}

export async function download() {
  const img = openImg();
  await img.run(["create", "-q", "-f", "qcow2", "new.qcow2", "1G"], {
    files: { "new.qcow2": { memory: "new" } },
  });
  const bytes: Blob = await img.memoryFile("new");
  console.log(bytes.size);
}
