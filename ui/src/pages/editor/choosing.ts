// Which nodes are selected after a key or a click in the outline. Pure.

/** One more, or one less. */
export const toggled = (selected: readonly string[], id: string) =>
  selected.includes(id) ? selected.filter((each) => each !== id) : [...selected, id];

/** Shift with an arrow, from one to the next: both are selected; going back over what is selected leaves it. */
export function stretched(selected: readonly string[], from: string, to: string) {
  if (selected.includes(to)) return selected.filter((each) => each !== from);
  return [...selected.filter((each) => each !== from), from, to];
}
