/** What this browser, in this window, has. */

/** Private windows of some browsers refuse OPFS, and pages that are not from https have none. */
export async function hasOpfs(): Promise<boolean> {
  try {
    await navigator.storage.getDirectory();
    return true;
  } catch (error) {
    // A TypeError: no such API here. A SecurityError and its like: not in this window.
    if (error instanceof TypeError || error instanceof DOMException) return false;
    throw error;
  }
}
