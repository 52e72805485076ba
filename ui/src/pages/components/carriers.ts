// Which daemons carry a component. Pure.

import type { Carriers } from "@/api/types";

const NAMES = new Intl.Collator("en", { numeric: true });

/** The daemons that carry it, by name. */
export const carriersOf = (all: readonly Carriers[], role: string, name: string) =>
  all
    .filter(({ components }) => components.includes(`${role}/${name}`))
    .flatMap(({ daemons }) => daemons)
    .sort(NAMES.compare);

/** Those among them all that have told what they carry, and have it not. */
export const othersOf = (all: readonly Carriers[], role: string, name: string) =>
  all
    .filter(({ components }) => !components.includes(`${role}/${name}`))
    .flatMap(({ daemons }) => daemons)
    .sort(NAMES.compare);

/** How many carry each component, by `role/name`. */
export function counts(all: readonly Carriers[]) {
  const found = new Map<string, number>();
  for (const { components, daemons } of all) {
    for (const component of components) found.set(component, (found.get(component) ?? 0) + daemons.length);
  }
  return found;
}
