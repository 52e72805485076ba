// What narrows a list: the field that "/" goes to, what else chooses, and how many are left of how many.

import type { ReactNode } from "react";
import { count, number } from "@/lib/format";
import { Input } from "./field";

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
  return (
    <div className="flex flex-wrap items-center gap-x-3 gap-y-2">
      <div className="min-w-48 flex-1">
        <Input
          type="search"
          data-search
          aria-label={`Filter ${noun}s`}
          placeholder={placeholder}
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
