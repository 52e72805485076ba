// The plain filter of short lists: words that all have to be somewhere, a minus turns one around. Pure.

export function fitsWords(texts: readonly string[], typed: string) {
  const all = texts.map((text) => text.toLowerCase());
  const has = (word: string) => all.some((text) => text.includes(word));
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  return words.every((word) => (word.startsWith("-") ? !has(word.slice(1)) : has(word)));
}
