/**
 * Links that change in drained sections, for whoever keeps a record of them (src/engine/journal/).
 *
 *   section A   ├── device ─▶ [top] becomes device ─▶ [base] ──┤ end
 *   section B        ├── filter taken out ──┤ end              ╎        ├─ requests go on
 *                                                              ╎ here all of it counts, at once
 *                                                              └─ watcher: takes note ─▶┘
 *
 * While a section lasts its changes are half done and may be taken back, so a record that is written
 * meanwhile has the links as they were. Sections that hold the parent of one link form a group, with all that
 * have changed before what changes now; when the last one of it ends, the group settles: its changes count, and
 * its requests wait until the watcher has taken note, since nothing may be written through a link that a crash
 * would take back. So what a link was, or a node, is noted in one group, and once.
 *
 * Filters of jobs come and go with their jobs: they are looked through, and so putting one in is no
 * change. Without a watcher none of this happens.
 */

import type { BlockParent } from "./child.ts";
import type { BlockNode } from "./node.ts";

export interface LinkWatcher {
  /** Links have changed and count from now on. @returns when requests may go on: never, if nothing may any more */
  linksSettled(): Promise<void>;
}

export interface LinkMove {
  readonly parent: BlockParent;
  /** "root" for a parent that is no node. */
  readonly role: string;
  readonly from: BlockNode | null;
  readonly to: BlockNode | null;
}

/** A drained section, as far as this file knows it. */
export interface Section {
  /** end() has not been called. */
  isOpen: boolean;
  group: Group | null;
  /** Its requests go on. */
  letGo(): void;
}

export interface Group {
  readonly sections: Set<Section>;
  readonly callbacks: (() => void)[];
  /** Where the links led before, by parent and role. */
  readonly before: Map<BlockParent, Map<string, BlockNode | null>>;
  /** What the nodes were that links have left: who is sent back there by a crash wants to write as ever. */
  readonly wasReadOnly: Map<BlockNode, boolean>;
}

export class LinkChanges {
  watcher: LinkWatcher | null = null;
  readonly #groups = new Set<Group>();

  /** @param sections open ones that hold the parent's requests back */
  moves({ parent, role, from, to }: LinkMove, sections: readonly Section[]): void {
    const met = new Set<Group>();
    const before = this.settled(parent, role, from, met);
    if (sections.length === 0 || before === this.#past(to)) return;
    const wasReadOnly = before && this.isReadOnly(before, met);
    const group = this.#merged(sections, met);
    const links = group.before.get(parent) ?? new Map<string, BlockNode | null>();
    group.before.set(parent, links);
    if (!links.has(role)) links.set(role, before);
    if (before) group.wasReadOnly.set(before, wasReadOnly!);
  }

  /** Whether a node is read-only, if what is under way is not looked at. @param met gets whose change that is */
  isReadOnly(node: BlockNode, met?: Set<Group>): boolean {
    return this.#wasReadOnly(node, met) ?? node.readOnly;
  }

  #wasReadOnly(node: BlockNode, met?: Set<Group>): boolean | undefined {
    const { followsParent, openedWith } = node;
    const group = [...this.#groups].find(({ wasReadOnly }) => wasReadOnly.has(node));
    if (!group) return followsParent && openedWith ? this.#wasReadOnly(openedWith, met) : undefined;
    met?.add(group);
    return group.wasReadOnly.get(node);
  }

  /** Where a link that leads to `now` leads, if what is under way is not looked at. @param met gets whose change that is */
  settled(
    parent: BlockParent,
    role: string,
    now: BlockNode | null,
    met?: Set<Group>,
  ): BlockNode | null {
    for (const group of this.#groups) {
      const links = group.before.get(parent);
      if (!links?.has(role)) continue;
      met?.add(group);
      return links.get(role) ?? null;
    }
    return this.#past(now, met);
  }

  /** @param callbacks to be called when what has changed in the section counts */
  ended(section: Section, callbacks: readonly (() => void)[]): void {
    const { group } = section;
    section.isOpen = false;
    if (!group) {
      for (const callback of callbacks) callback();
      section.letGo();
      return;
    }
    group.callbacks.push(...callbacks);
    if ([...group.sections].some(({ isOpen }) => isOpen)) return;
    this.#groups.delete(group);
    for (const callback of group.callbacks) callback();
    const letGo = () => {
      for (const one of group.sections) one.letGo();
    };
    if (this.watcher) this.watcher.linksSettled().then(letGo);
    else letGo();
  }

  /** Past filters of jobs. */
  #past(node: BlockNode | null, met?: Set<Group>): BlockNode | null {
    if (!node?.isJobFilter) return node;
    return this.settled(node, "file", node.children.get("file")?.node ?? null, met);
  }

  /** One group of all that these are in, and those that they have met. */
  #merged(sections: readonly Section[], met: ReadonlySet<Group>): Group {
    const none = { callbacks: [], before: new Map(), wasReadOnly: new Map() };
    const merged: Group = { sections: new Set(sections), ...none };
    const groups = sections.flatMap(({ group }) => group ?? []);
    for (const group of new Set([...groups, ...met])) {
      this.#groups.delete(group);
      merged.callbacks.push(...group.callbacks);
      for (const section of group.sections) merged.sections.add(section);
      for (const [parent, links] of group.before) {
        merged.before.set(parent, new Map([...links, ...(merged.before.get(parent) ?? [])]));
      }
      for (const [node, was] of group.wasReadOnly) merged.wasReadOnly.set(node, was);
    }
    for (const section of merged.sections) section.group = merged;
    this.#groups.add(merged);
    return merged;
  }
}
