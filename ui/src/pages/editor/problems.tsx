// What the plane finds wrong with the text, moments after the last key, and the way to each place.

import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { validateWorkflow } from "@/api/actions";
import { keys } from "@/api/keys";
import type { Problem } from "@/api/types";
import { Failure } from "@/components/callout";
import { Status } from "@/components/status";
import { count } from "@/lib/format";
import { type Node, SECTIONS } from "@/workflow/graph";

/** How long after the last key the text is checked, in milliseconds. */
const PAUSE_MS = 250;

export function useProblems(text: string) {
  const [settled, setSettled] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(text), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [text]);
  const check = useQuery({
    queryKey: keys.problems(settled),
    queryFn: () => validateWorkflow(settled),
    staleTime: Infinity,
    gcTime: 0,
    placeholderData: (before) => before,
  });
  return { check, isSettled: settled === text && !check.isFetching };
}

const isBelow = (place: string, above: string) =>
  place === above || (place.startsWith(above) && [".", "["].includes(place[above.length] ?? ""));

export const placeOf = (node: Pick<Node, "id" | "role">) => `${SECTIONS[node.role]}.${node.id}`;

/** Those of a node, or of one of its settings. */
export const problemsOf = (problems: readonly Problem[], node: Pick<Node, "id" | "role">, setting?: string) => {
  const above = setting === undefined ? placeOf(node) : `${placeOf(node)}.${setting}`;
  return problems.filter(({ place }) => isBelow(place, above));
};

/** The text of a workflow says that it is another one. Under the name of this one the plane does not take it; a rollout goes by the
 *  text alone, and would change the other one. */
export function renamed(name: string | null, inText: string, text: string): Problem[] {
  // That there is no name is what the plane says.
  if (name === null || inText === "" || inText === name) return [];
  const line = text.split("\n").findIndex((each) => /^\s*name\s*=/.test(each)) + 1;
  const hint = "a workflow cannot be renamed: apply it as a new one and delete the old one";
  return [{ place: "name", line, message: `the text is of the workflow '${inText}', not of '${name}'`, hint }];
}

interface ProblemsProps {
  problems: readonly Problem[];
  check: ReturnType<typeof useProblems>["check"];
  isSettled: boolean;
  onJump: (problem: Problem) => void;
}

export function Problems({ check, problems, isSettled, onJump }: ProblemsProps) {
  return (
    <section aria-label="Problems" className="flex max-h-44 shrink-0 flex-col border-t border-line bg-surface text-sm">
      <p role="status" className="px-3 py-1.5">
        {check.isError ? null : problems.length > 0 ? (
          <Status tone="bad">{count(problems.length, "problem")}</Status>
        ) : isSettled ? (
          <Status tone="good">The plane finds nothing wrong.</Status>
        ) : (
          <span className="text-muted">Checking …</span>
        )}
      </p>
      {check.isError && (
        <div className="p-2">
          <Failure error={check.error} onRetry={() => void check.refetch()} />
        </div>
      )}
      {problems.length > 0 && (
        <ul className="overflow-y-auto border-t border-line">
          {problems.map((problem) => (
            <li key={`${problem.place} ${problem.line} ${problem.message}`}>
              <button
                type="button"
                className="flex w-full flex-wrap gap-x-3 px-3 py-1 text-left hover:bg-hover focus-visible:-outline-offset-2"
                onClick={() => onJump(problem)}
              >
                <span className="tabular text-muted">
                  {problem.line > 0 && `line ${problem.line} `}
                  <code className="font-mono text-xs">{problem.place}</code>
                </span>
                <span>{problem.message}</span>
                {problem.hint && <span className="text-muted">{problem.hint}</span>}
              </button>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
