/** Takes something away from a window and from its workers, before any script of the page runs. */

import type { BrowserContext } from "playwright";

/** In a page alone. */
export const NO_LOCKS = "delete Navigator.prototype.locks;";
export const NO_DATABASE = "delete window.indexedDB;";

/** In its workers. */
export const NO_SYNC_HANDLES = "delete FileSystemFileHandle.prototype.createSyncAccessHandle;";
/** In both: what private windows of Firefox say. */
export const NO_OPFS =
  'StorageManager.prototype.getDirectory = async () => { throw new DOMException("Not here", "SecurityError"); };';

/** From the next page on. */
export async function takeAway(
  context: BrowserContext,
  { page = "", worker = "" }: { readonly page?: string; readonly worker?: string },
): Promise<void> {
  await context.addInitScript(page);
  if (worker === "") return;
  // Each worker begins with a module of these words: the page's own is the second that it imports.
  await context.addInitScript((words) => {
    const quote = (url: string) => `import ${JSON.stringify(url)};`;
    const first = `data:text/javascript,${encodeURIComponent(words)}`;
    window.Worker = class extends Worker {
      constructor(url: string | URL, options?: WorkerOptions) {
        const text = quote(first) + quote(new URL(url, location.href).href);
        super(URL.createObjectURL(new Blob([text], { type: "text/javascript" })), options);
      }
    };
  }, worker);
}
