/**
 * An image that is open to be checked, and for nothing else.
 */

import { alignUp } from "../../../../base/bytes.ts";
import type { Clock } from "../../../../base/clock.ts";
import type { BlockState } from "../../../../block/driver.ts";
import type { Image } from "../image.ts";
import { infoOf } from "../info.ts";
import { SECTOR_BYTES } from "../layout.ts";
import { checkImage } from "./check.ts";

export function checkStateOf(image: Image, clock: Clock): BlockState {
  return {
    limits: { requestAlignment: 1, clusterSize: image.layout.clusterBytes, growable: false },
    getLength: () => alignUp(image.header.size, SECTOR_BYTES),
    check: (request) => image.mutex.run(() => checkImage(image, request, clock), request.signal),
    close: async () => image.pages.close(),
    info: () => infoOf(image),
  };
}
