/** Who we say we are, in the greeting and in query-version, and what a client may enable. */

/** The QEMU whose protocol this is, and our own name and version (package.json). */
export const VERSION = {
  qemu: { major: 10, minor: 1, micro: 0 },
  package: "blocktab 0.1.0",
};

/** QMPCapability: what qmp_capabilities may enable. */
export const CAPABILITIES = ["oob"] as const;
