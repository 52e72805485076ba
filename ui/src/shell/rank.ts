// What fits a few letters, the best first. Pure.

export interface Entry {
  kind: string;
  name: string;
  run: () => void;
}

/** Higher is better; `null`: it does not fit. A word's beginning beats its middle, which beats letters in between. */
function score(text: string, word: string): number | null {
  const at = text.indexOf(word);
  if (at === 0) return 4;
  if (at > 0) return /[\s_.:/-]/.test(text[at - 1] ?? "") ? 3 : 2;
  let from = 0;
  for (const letter of word) {
    const found = text.indexOf(letter, from);
    if (found < 0) return null;
    from = found + 1;
  }
  return 1;
}

export function rank(entries: readonly Entry[], typed: string): Entry[] {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  const scored: [number, Entry][] = [];
  for (const entry of entries) {
    const name = entry.name.toLowerCase();
    let sum = 0;
    let fits = true;
    for (const word of words) {
      const inName = score(name, word);
      const inKind = entry.kind.startsWith(word) ? 1.5 : null;
      const best = Math.max(inName ?? 0, inKind ?? 0);
      if (best === 0) fits = false;
      sum += best;
    }
    if (fits) scored.push([sum, entry]);
  }
  // Equal ones stay in their order.
  return scored.sort(([a], [b]) => b - a).map(([, entry]) => entry);
}
