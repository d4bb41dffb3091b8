/**
 * Where our schema is not QEMU 10.0's, and why: paths as in compare.ts, as regular expressions. One
 * that fits nothing any more is an error, so that no excuse outlives its reason.
 */

type Reasons = readonly (readonly [path: RegExp, reason: string])[];

const OUR_STORES = "stores of browsers, which QEMU does not have";
const NO_ACCOUNTS = "no accounts on servers, whose passwords secrets would hold";

export const ONLY_OURS: Reasons = [
  [/driver\/\^(memory|opfs|indexeddb|blob)$/, OUR_STORES],
  [/^blockdev-create.*\+raw\//, "raw makes images, too: a store of a certain size"],
  [/\+http\/(expect|cache-size|retry-time)$/, "what HTTP by range needs here"],
  [/\/children$/, "in QEMU since 10.1"],
  [/^blockdev-mirror\/arg-type\/target-is-zero$/, "in QEMU since 10.1"],
  [/^(blockdev|drive)-backup\/arg-type\/on-cbw-error$/, "in QEMU since 10.1"],
  [/\^message-port$/, "the way by which a page gets at the bytes"],
  [/^snapshot-(save|load|delete)$/, "QEMU has them only where there is a machine"],
  [/^x-blockdev-amend.*\/(version|lazy-refcounts)$/, "what there is to amend here"],
  [/^BLOCK_JOB_ERROR.*\/(reason|errno)$/, "a person wants to know which URL, which bytes"],
];

export const ONLY_THEIRS: Reasons = [
  [/\/(values|file)\/\$|\/\+file\/\$/, "no client can tell by it what would be different here"],
  [/driver\/\^/, "drivers that there are not: see the README"],
  [/(\+https?\/.*secret|username|cookie)/, NO_ACCOUNTS],
  [/preallocation|nocow|extent-size-hint/, "stores of browsers cannot set room aside"],
  [/\/active$/, "all nodes are active here"],
  [/\+blkdebug\/(config|inject-error)/, "no configuration files; delays are not there yet"],
  [/allow-write-only-overlay/, "an overlay has to be readable here"],
  [/ret-type\/(bps|iops)_|ret-type\/group$/, "limits are told by qom-get of their group"],
  [/^qom-list\/ret-type\/(description|default-value)$/, "properties here have neither"],
  [/full-backing-filename/, "names inside images are not resolved"],
  [/format-specific\/type\/\^(vmdk|rbd|luks)$/, "formats that there are not"],
  [/^query-block(stats)?\/ret-type\/(qdev|tray_open|io-status)$/, "there are no guest devices"],
  [/latency|queue_depth|interval_length/, "no intervals and histograms can be asked for"],
  [/qom-type\/\^/, "objects that there are not"],
  [/type\/\^(vhost-user-blk|fuse|vduse-blk)$/, "exports that need a host's kernel or devices"],
  [/sync\/\^(incremental|bitmap)$/, "a mirror refuses them in QEMU as well"],
  [/^block-job-change\/arg-type\/type\/\^/, "only a mirror has something to change"],
  [/addr\/type\/\^(vsock|fd)$|data\/(mptcp|abstract|tight)$/, "sockets that Node does not have"],
];

export const UNLIKE: Reasons = [
  [/^blockdev-create.*\+qcow2\/(data-file|backing-fmt):/, "a node's name; any format's name"],
  [/^query-block-exports\/ret-type\/type:/, "a text: which types there are depends on the host"],
];
