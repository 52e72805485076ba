// What is different between two texts of a workflow, as a list.

import type { Difference, NodeChange } from "@/workflow/diff";
import { type Value, write } from "@/workflow/value";
import { Status, type Tone } from "./status";

const TONES: Record<NodeChange["kind"], Tone> = { added: "good", changed: "warn", removed: "bad" };
/** Longest value that is shown whole, in characters. */
const VALUE_MAX = 120;

function Shown({ value }: { value: Value | undefined }) {
  if (value === undefined) return <span className="text-muted">not set</span>;
  const text = write(value);
  return (
    <code className="font-mono text-xs break-all">
      {text.length > VALUE_MAX ? `${text.slice(0, VALUE_MAX)} …` : text}
    </code>
  );
}

export function DifferenceList({ difference }: { difference: Difference }) {
  const { nodes, tests } = difference;
  if (nodes.length === 0 && tests.length === 0) {
    return <p className="text-sm text-muted">The same nodes with the same settings.</p>;
  }
  return (
    <ul className="flex flex-col gap-2 text-sm" aria-label="Changes">
      {nodes.map(({ id, role, kind, component, fields }) => (
        <li key={`${kind} ${id}`} className="rounded-(--radius) border border-line bg-surface px-3 py-2">
          <p className="flex flex-wrap items-baseline gap-x-2">
            <Status tone={TONES[kind]}>{kind}</Status>
            <strong className="font-medium break-all">{id}</strong>
            <span className="text-muted">
              {role} {component}
            </span>
          </p>
          {fields.length > 0 && (
            <dl className="mt-1 grid grid-cols-[minmax(4rem,auto)_1fr] gap-x-3 gap-y-0.5">
              {fields.map(({ field, before, after }) => (
                <div key={field} className="contents">
                  <dt className="text-muted">{field}</dt>
                  <dd className="min-w-0">
                    <Shown value={before} /> → <Shown value={after} />
                  </dd>
                </div>
              ))}
            </dl>
          )}
        </li>
      ))}
      {tests.length > 0 && <li className="px-3 text-muted">Tests: {tests.join(", ")}</li>}
    </ul>
  );
}
