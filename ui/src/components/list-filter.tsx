// What narrows a list: the field that "/" goes to, what else chooses, and how many are left of how many.

import type { ReactNode } from "react";
import { count, number } from "@/lib/format";
import { useNarrow } from "@/lib/narrow";
import { Input } from "./field";

/** What a filter says while it is empty: on a telephone there is no room for more. */
export const useFilterHint = (whole: string) => (useNarrow() ? "Filter by words; -word leaves out" : whole);

interface ListFilterProps {
  /** What is listed, one of it: "alert". */
  noun: string;
  placeholder: string;
  typed: string;
  onType: (typed: string) => void;
  found: number;
  all: number;
  /** Whatever else chooses. */
  children?: ReactNode;
}

export function ListFilter({ noun, placeholder, typed, onType, found, all, children }: ListFilterProps) {
  const hint = useFilterHint(placeholder);
  return (
    <div className="flex flex-wrap items-center gap-x-3 gap-y-2">
      <div className="min-w-48 flex-1 max-md:basis-full">
        <Input
          type="search"
          data-search
          aria-label={`Filter ${noun}s`}
          placeholder={hint}
          value={typed}
          onChange={(event) => onType(event.target.value)}
        />
      </div>
      {children}
      <span role="status" className="tabular text-sm text-muted">
        {found === all ? count(all, noun) : `${number(found)} of ${count(all, noun)}`}
      </span>
    </div>
  );
}
