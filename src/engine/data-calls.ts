/** What a client can do with what QMP cannot carry, over whatever takes its data requests. */

import type { DataRequester } from "./data-client.ts";
import { Device } from "./device.ts";
import type { StoredFile } from "./protocol.ts";

export abstract class DataCalls {
  protected abstract readonly data: DataRequester;

  /**
   * @param id of an export, see block-export-add
   * @throws QmpError ENOENT; ECANCELED: where disks are shared, one that has to come back first is waited for
   */
  async openDevice(id: string, signal?: AbortSignal): Promise<Device> {
    const opened = await this.data.request({ op: "open", export: id }, [], signal);
    return new Device(id, this.data, opened);
  }

  /** Hands a File or Blob to the engine, where driver `blob` finds it by name. @throws EEXIST */
  async addBlob(name: string, blob: Blob): Promise<void> {
    await this.data.request({ op: "add-blob", name, blob });
  }

  /** A node that has it open keeps it. */
  async removeBlob(name: string): Promise<void> {
    await this.data.request({ op: "remove-blob", name });
  }

  /** The image files that are kept in this browser (OPFS). */
  listFiles(): Promise<readonly StoredFile[]> {
    return this.data.request({ op: "list-files" });
  }

  /**
   * An image file for a download: its bytes stay on disk until they are read. Close its node first;
   * it can be read until the image is opened for writing again.
   *
   * @throws QmpError EBUSY while it is open as a node, ENOENT
   */
  getFile(filename: string): Promise<File> {
    return this.data.request({ op: "get-file", filename });
  }

  /** @throws QmpError EBUSY while it is open, ENOENT */
  async removeFile(filename: string): Promise<void> {
    await this.data.request({ op: "remove-file", filename });
  }
}
