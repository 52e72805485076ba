// Changes of labels as one types them, here and on the command line: `site=berlin` puts on, `test-` takes off. Pure.

const KEY = /^[a-zA-Z0-9][a-zA-Z0-9._/-]*$/;
const VALUE = /^[a-zA-Z0-9._/-]{1,64}$/;

export interface LabelChanges {
  set: Record<string, string>;
  unset: string[];
  /** What is wrong with what was typed; empty: nothing. */
  error: string;
}

export function parseChanges(typed: string): LabelChanges {
  const changes: LabelChanges = { set: {}, unset: [], error: "" };
  for (const word of typed.split(/\s+/).filter(Boolean)) {
    const [key = "", value] = word.split(/=(.*)/s);
    if (value !== undefined && KEY.test(key) && VALUE.test(value)) changes.set[key] = value;
    else if (value === undefined && word.endsWith("-") && KEY.test(word.slice(0, -1)))
      changes.unset.push(word.slice(0, -1));
    else
      return {
        ...changes,
        error: `“${word}” is no change of a label: write site=berlin to put one on, site- to take it off.`,
      };
  }
  return changes;
}

/** What makes a change of labels as if it had not been, for a daemon that had these before. */
export function undone({ set, unset }: Pick<LabelChanges, "set" | "unset">, before: Readonly<Record<string, string>>) {
  const touched = new Set([...Object.keys(set), ...unset]);
  return {
    set: Object.fromEntries(Object.entries(before).filter(([key]) => touched.has(key))),
    unset: [...touched].filter((key) => before[key] === undefined),
  };
}
