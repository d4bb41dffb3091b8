/**
 * Wrong arguments, put to the real daemons and to ours: the class of the error is the same, and the
 * parameter that QEMU names is named here, too.
 */

import { describe, expect, it } from "vitest";
import { createNodeEngine } from "../../src/engine/node.ts";
import { kernelBytes } from "../kernel/load.ts";
import { DAEMONS, RealDaemon } from "./daemons.ts";

type Reply = { id?: number; error?: { class: string; desc: string } };

const add = (options: string) => `"blockdev-add", "arguments": {${options}}`;
const create = (options: string) =>
  `"blockdev-create", "arguments": {"job-id": "j", "options": {${options}}}`;
const transaction = (actions: string, more = "") =>
  `"transaction", "arguments": {"actions": ${actions}${more}}`;
const args = (name: string, members: string) => `"${name}", "arguments": {${members}}`;

/** What follows "execute": in each request. */
const WRONG = [
  args("job-pause", ""),
  args("job-pause", '"id": 1'),
  args("job-pause", '"id": null'),
  args("job-pause", '"id": ["x"]'),
  args("job-pause", '"id": {}'),
  args("job-pause", '"id": true'),
  args("job-pause", '"id": "x", "y": 2'),
  args("job-pause", '"id": 1, "y": 2'),
  args("job-pause", '"__proto__": 2, "id": "x"'),
  args("job-pause", '"toString": 2, "id": "x"'),
  args("query-jobs", '"x": 1'),
  args("block-job-set-speed", '"device": "x", "speed": "1"'),
  args("block-job-set-speed", '"device": "x", "speed": 1.5'),
  args("block-job-set-speed", '"device": "x", "speed": 1.0'),
  args("block-job-set-speed", '"device": "x", "speed": 1e3'),
  args("block-job-set-speed", '"device": "x", "speed": null'),
  args("block-job-set-speed", '"device": "x", "speed": true'),
  args("block-job-set-speed", '"device": "x", "speed": 18446744073709551616'),
  args("block-job-set-speed", '"device": "x", "speed": 9223372036854775808'),
  args("block-job-set-speed", '"device": 1, "speed": "x"'),
  args("block-job-set-speed", '"speed": "x"'),
  args("block-stream", '"device": "x", "on-error": "retry"'),
  args("block-stream", '"device": "x", "on-error": 1'),
  args("block-stream", '"device": "x", "auto-finalize": "yes"'),
  args("block-stream", '"device": "x", "auto-finalize": 1'),
  args("blockdev-mirror", '"device": "d", "target": "t", "sync": "most"'),
  args("blockdev-mirror", '"device": "d", "target": "t"'),
  args("blockdev-backup", '"device": "d", "target": "t", "sync": "full", "x-perf": 1'),
  args("blockdev-backup", '"device": "d", "target": "t", "sync": "full", "x-perf": {"y": 1}'),
  args(
    "blockdev-backup",
    '"device": "d", "target": "t", "sync": "full", "x-perf": {"max-workers": "1"}',
  ),
  args("block-dirty-bitmap-merge", '"node": "n", "target": "t", "bitmaps": "b"'),
  args("block-dirty-bitmap-merge", '"node": "n", "target": "t", "bitmaps": [1]'),
  args("block-dirty-bitmap-merge", '"node": "n", "target": "t", "bitmaps": [null]'),
  args("block-dirty-bitmap-merge", '"node": "n", "target": "t", "bitmaps": ["a", {"node": "n"}]'),
  args(
    "block-dirty-bitmap-merge",
    '"node": "n", "target": "t", "bitmaps": [{"node": 1, "name": "x"}]',
  ),
  args(
    "block-dirty-bitmap-merge",
    '"node": "n", "target": "t", "bitmaps": [{"node": "n", "name": "x", "y": 1}]',
  ),
  args("qmp_capabilities", '"enable": "oob"'),
  args("qmp_capabilities", '"enable": ["bogus"]'),
  args("qmp_capabilities", '"enable": [1]'),
  args("qom-set", '"path": "p", "property": "q"'),
  args("object-add", '"id": "t"'),
  args("object-add", '"qom-type": "no-such-type", "id": "t"'),
  args("object-add", '"qom-type": "throttle-group"'),
  args("object-add", '"qom-type": "throttle-group", "id": "t", "limits": {"bps-x": 1}'),
  args("object-add", '"qom-type": "throttle-group", "id": "t", "bogus": 1'),
  add('"node-name": "x"'),
  add('"driver": 1'),
  add('"driver": "bogus", "node-name": "x"'),
  add('"driver": "file", "node-name": "x"'),
  add('"driver": "file", "node-name": "x", "filename": 1'),
  add('"driver": "file", "node-name": "x", "filename": "f", "bogus": 1'),
  add('"driver": "file", "node-name": 1, "filename": 2'),
  add('"driver": "raw", "node-name": "x"'),
  add('"driver": "raw", "node-name": "x", "file": 1'),
  add('"driver": "raw", "node-name": "x", "file": null'),
  add('"driver": "raw", "node-name": "x", "file": {}'),
  add('"driver": "raw", "node-name": "x", "file": {"driver": "bogus"}'),
  add('"driver": "raw", "node-name": "x", "file": {"driver": "file"}'),
  add('"driver": "raw", "node-name": "x", "file": {"driver": "file", "filename": 1}'),
  add(
    '"driver": "raw", "node-name": "x", "file": {"driver": "raw", "file": {"driver": "file", "x": 1}}',
  ),
  add('"driver": "qcow2", "node-name": "x", "file": "f", "backing": 1'),
  add('"driver": "qcow2", "node-name": "x", "file": "f", "backing": {"driver": 1}'),
  add('"driver": "qcow2", "node-name": "x", "file": "f", "read-only": "on"'),
  add('"driver": "qcow2", "node-name": "x", "file": "f", "cache": {"direct": 1}'),
  add('"driver": "qcow2", "node-name": "x", "file": "f", "cache": {"x": true}'),
  add('"driver": "qcow2", "node-name": "x", "file": "f", "detect-zeroes": "maybe"'),
  add('"driver": "qcow2", "node-name": "x", "file": "f", "discard": null'),
  add('"driver": "blkdebug", "node-name": "x", "image": "f", "inject-error": [{}]'),
  add('"driver": "blkdebug", "node-name": "x", "image": "f", "inject-error": [{"event": "x"}]'),
  add('"driver": "blkdebug", "node-name": "x", "image": "f", "align": "x"'),
  add('"driver": "throttle", "node-name": "x", "file": "f"'),
  args("blockdev-reopen", '"options": {}'),
  args("blockdev-reopen", '"options": [1]'),
  args("blockdev-reopen", '"options": [{"driver": "bogus"}]'),
  args("blockdev-reopen", '"options": [{"driver": "raw", "file": 1}]'),
  create('"size": 1'),
  create('"driver": "bogus"'),
  create('"driver": "file", "filename": "f"'),
  create('"driver": "file", "filename": "f", "size": "1"'),
  create('"driver": "file", "filename": "f", "size": 1, "x": 1'),
  create('"driver": "qcow2", "size": 1'),
  create('"driver": "qcow2", "file": "f", "size": 1, "version": "v4"'),
  create('"driver": "qcow2", "file": "f", "size": 1, "compression-type": "gzip"'),
  args("x-blockdev-amend", '"job-id": "j", "node-name": "n", "options": {}'),
  args("x-blockdev-amend", '"job-id": "j", "node-name": "n", "options": {"driver": "bogus"}'),
  transaction("{}"),
  transaction("[1]"),
  transaction('[{"type": "bogus", "data": {}}]'),
  transaction('[{"type": "abort"}]'),
  transaction('[{"type": "abort", "data": {"x": 1}}]'),
  transaction('[{"data": {}}]'),
  transaction('[{"type": "block-dirty-bitmap-add", "data": {"node": "n"}}]'),
  transaction('[{"type": "block-dirty-bitmap-add", "data": {"node": "n", "name": 1}}]'),
  transaction('[{"type": "block-dirty-bitmap-add", "data": {"node": "n", "name": "b", "x": 1}}]'),
  transaction('[{"type": "abort", "data": {}, "x": 1}]'),
  transaction("[]", ', "properties": {"completion-mode": "x"}'),
  transaction("[]", ', "properties": {"x": 1}'),
  args("block-export-add", '"id": "e", "node-name": "n"'),
  args("block-export-add", '"type": "bogus", "id": "e", "node-name": "n"'),
  args("block-export-add", '"type": "nbd", "node-name": "n"'),
  args("block-export-add", '"type": "nbd", "id": "e", "node-name": "n", "writable": 1'),
  args("block-export-add", '"type": "nbd", "id": "e", "node-name": "n", "bogus": 1'),
  args("block-export-add", '"type": "nbd", "id": "e", "node-name": "n", "bitmaps": "b"'),
  args("nbd-server-start", '"addr": {"type": "bogus", "data": {}}'),
  args("nbd-server-start", '"addr": {"type": "unix", "data": {}}'),
  args("nbd-server-start", '"addr": {"type": "unix"}'),
  args("nbd-server-start", '"addr": {"type": "inet", "data": {"host": "h", "port": 1}}'),
  args("nbd-server-start", '"addr": 1'),
  args("block_resize", '"node-name": "n", "size": "1M"'),
  args("block_resize", '"node-name": "n"'),
];

describe.skipIf(DAEMONS.length === 0).each(DAEMONS.map((program, i) => [i, program] as const))(
  "the real qemu-storage-daemon (%i)",
  (_, program) => {
    it(`names the same parameters in ${WRONG.length} wrong requests`, async () => {
      const lines = WRONG.map((wrong, id) => `{"id": ${id}, "execute": ${wrong}}\n`);
      const theirs = await askDaemon(program, lines);
      const ours = await askOurs(lines);
      const unlike = WRONG.flatMap((wrong, id) => {
        const [our, their] = [ours.get(id), theirs.get(id)];
        const parameter = parameterOf(their);
        const isSame = our?.error?.class === their?.error?.class;
        // Where QEMU tells only the last part of a name, ours may tell all of it.
        const isNamed = [`'${parameter}'`, `.${parameter}'`].some((name) =>
          our?.error?.desc.includes(name),
        );
        return isSame && (parameter === null || isNamed) ? [] : [{ wrong, our, their }];
      });
      expect(unlike).toEqual([]);
    });
  },
);

/** That an error of QEMU's is about. In an alternate it has lost the name, and says 'null'. */
function parameterOf(reply: Reply | undefined): string | null {
  const words = /^(?:Parameter|Invalid parameter type for) '([^']+)'/;
  const name = words.exec(reply?.error?.desc ?? "")?.[1] ?? null;
  return name === "null" ? null : name;
}

async function askDaemon(program: string, lines: readonly string[]): Promise<Map<number, Reply>> {
  const daemon = new RealDaemon(program);
  try {
    daemon.say(
      ['{"execute":"qmp_capabilities"}', ...lines, '{"execute":"query-jobs","id":-1}'].join("\n"),
    );
    const heard = await daemon.hear('"id": -1');
    return byId(
      heard
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Reply),
    );
  } finally {
    daemon.kill();
  }
}

async function askOurs(lines: readonly string[]): Promise<Map<number, Reply>> {
  const engine = await createNodeEngine({ kernelBytes: kernelBytes() });
  const heard: Reply[] = [];
  const monitor = engine.openMonitor((message) => heard.push(message as Reply));
  monitor.receiveText(['{"execute":"qmp_capabilities"}', ...lines].join("\n"));
  await monitor.idle();
  await engine.close();
  return byId(heard);
}

function byId(replies: readonly Reply[]): Map<number, Reply> {
  return new Map(replies.filter(({ id }) => id !== undefined).map((reply) => [reply.id!, reply]));
}
