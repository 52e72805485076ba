// Two texts of a workflow beside each other: what changed in its nodes, and the lines.

import { useMemo } from "react";
import { cx } from "@/lib/cx";
import { type Change, changes, type DiffLine, diffLines, hunks } from "@/lib/diff";
import { Panel } from "./page";

const MARKS: Record<DiffLine["kind"], [mark: string, looks: string]> = {
  same: [" ", ""],
  added: ["+", "bg-good-soft"],
  removed: ["−", "bg-bad-soft"],
};

function words({ setting, before, after }: Change) {
  if (setting === "") return before === null ? `is new (${after})` : `is gone (${before})`;
  if (before === null) return `${setting} = ${after} is new`;
  if (after === null) return `${setting} = ${before} is gone`;
  return `${setting}: ${before} → ${after}`;
}

export function Diff({ older, newer }: { older: string; newer: string }) {
  const found = useMemo(() => changes(older, newer), [older, newer]);
  const lines = useMemo(() => hunks(diffLines(older, newer)), [older, newer]);
  if (older === newer) return <p className="text-sm text-muted">The texts are the same.</p>;
  return (
    <div className="flex flex-col gap-3">
      {found.length === 0 ? (
        <p className="text-sm text-muted">Only comments, order or blank lines differ.</p>
      ) : (
        <ul className="flex flex-col gap-1 text-sm">
          {found.map((change) => (
            <li key={`${change.node} ${change.setting}`} className="break-words">
              <code className="font-mono text-xs font-medium">{change.node || "workflow"}</code> {words(change)}
            </li>
          ))}
        </ul>
      )}
      <Panel className="overflow-x-auto">
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, so the keyboard has to reach it */}
        <pre tabIndex={0} className="min-w-max py-1 font-mono text-xs leading-5">
          {lines.map((line, at) =>
            line === null ? (
              // biome-ignore lint/suspicious/noArrayIndexKey: lines never move
              <div key={at} className="px-3 text-muted">
                …
              </div>
            ) : (
              <div key={`${line.before} ${line.after}`} className={cx("px-3", MARKS[line.kind][1])}>
                <span className="tabular inline-block w-10 text-right text-muted select-none">
                  {line.after || line.before}
                </span>
                <span className="inline-block w-6 text-center select-none">{MARKS[line.kind][0]}</span>
                {line.text}
              </div>
            ),
          )}
        </pre>
      </Panel>
    </div>
  );
}
