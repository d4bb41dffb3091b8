/** `resize`: another size for a disk; a smaller one only where that is said, too. */

import { alignUp, SECTOR_BYTES } from "../../base/bytes.ts";
import { BlockError } from "../../base/errors.ts";
import { type Arguments, FORMAT, IMAGE_OPTS, type ImgCommand, OBJECT, QUIET } from "../command.ts";
import { openImage } from "../open.ts";
import type { Session } from "../session.ts";
import { parseSize } from "../size.ts";

export const resize: ImgCommand = {
  name: "resize",
  summary: "Makes a disk longer or shorter",
  operands: "FILENAME [+|-]SIZE",
  hasSignedOperands: true,
  options: [
    QUIET,
    FORMAT,
    IMAGE_OPTS,
    { name: "shrink", help: "the disk may get shorter: what is beyond is lost" },
    { name: "preallocation", value: "MODE", help: "of what is new: off, metadata, falloc, full" },
    OBJECT,
  ],
  run,
};

const MODES = ["off", "metadata", "falloc", "full"] as const;
type Mode = (typeof MODES)[number];

async function run(session: Session, args: Arguments): Promise<number> {
  const [image, text, ...more] = args.operands;
  if (image === undefined || text === undefined || more.length > 0) {
    throw new BlockError("EINVAL", "Expected the name of an image and a size");
  }
  const preallocation = modeOf(args.last("preallocation") ?? "off");
  const [, sign = "", digits] = /^([+-]?)(.*)$/s.exec(text)!;
  const bytes = parseSize(digits!, "Size");
  // Growing zeroes what a longer backing file would show: it has to be there.
  const backend = await openImage(session, args.theImage(image), { writable: true });
  // Guests see whole sectors.
  const before = alignUp(backend.length, SECTOR_BYTES);
  const after = sign === "+" ? before + bytes : sign === "-" ? before - bytes : bytes;
  if (after <= 0 || !Number.isSafeInteger(after)) {
    throw new BlockError("EINVAL", "The new size has to be more than 0, and less than 2^53 bytes");
  }
  if (after <= before && preallocation !== "off") {
    throw new BlockError("EINVAL", "Preallocation is only for disks that grow");
  }
  if (after < before && !args.has("shrink")) {
    throw new BlockError(
      "EINVAL",
      `The disk has ${before} bytes. To cut it off at ${after}, and lose what is beyond, give --shrink`,
    );
  }
  const { signal } = session;
  await backend.truncate(after, { preallocation, ...(signal && { signal }) });
  if (!args.has("quiet")) await session.print("Image resized.\n");
  return 0;
}

function modeOf(text: string): Mode {
  const mode = MODES.find((one) => one === text);
  if (mode) return mode;
  throw new BlockError(
    "EINVAL",
    `There is no preallocation mode '${text}'; there are: ${MODES.join(", ")}`,
  );
}
