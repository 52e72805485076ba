// Another component for a node: what changes in its settings. Pure.

import type { Edit } from "./edit";
import { RESERVED } from "./graph";
import type { Path } from "./patch";
import type { Table } from "./value";

/**
 * What both know stays, what only the old one knew goes, and what the new one's example has and is missing comes.
 * `known`: the settings of the new component; `example`: its own example's.
 */
export function retype(path: Path, keys: Table, type: string, known: ReadonlySet<string>, example: Table): Edit[] {
  const gone = Object.keys(keys).filter((key) => !RESERVED.has(key) && !known.has(key));
  const missing = Object.entries(example).filter(([key]) => !RESERVED.has(key) && !Object.hasOwn(keys, key));
  return [
    { kind: "set", path: [...path, "type"], value: type },
    ...gone.map((key): Edit => ({ kind: "unset", path: [...path, key] })),
    ...missing.map(([key, value]): Edit => ({ kind: "set", path: [...path, key], value })),
  ];
}
