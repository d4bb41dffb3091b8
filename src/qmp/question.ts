/**
 * Commands that only ask: whoever does not know whether he has been heard asks again. QEMU names them so,
 * and a page that has no table of commands can tell them as well.
 */

const QUESTION = /^(?:x-)?(?:debug-)?query-|^qom-(?:get|list)|^qmp_capabilities$/;

/** @param name of a command, whether there is one or not: one that is refused changes nothing either */
export function isQuestion(name: string): boolean {
  return QUESTION.test(name);
}
