// What stands above every page of one workflow: its ways of being looked at.

import { Link, useLocation } from "wouter";

const part = encodeURIComponent;

const TABS = [
  ["Run", ""],
  ["Edit", "/edit"],
  ["Revisions", "/revisions"],
] as const;

export function WorkflowTabs({ name }: { name: string }) {
  const [path] = useLocation();
  return (
    <nav aria-label={`Views of ${name}`} className="-mt-2 flex gap-1 border-b border-line">
      {TABS.map(([label, rest]) => {
        const href = `/workflows/${part(name)}${rest}`;
        return (
          <Link
            key={label}
            href={href}
            aria-current={path === href ? "page" : undefined}
            className="-mb-px border-b-2 border-transparent px-3 py-1.5 text-sm text-muted hover:text-text aria-[current=page]:border-accent aria-[current=page]:font-medium aria-[current=page]:text-text"
          >
            {label}
          </Link>
        );
      })}
    </nav>
  );
}
