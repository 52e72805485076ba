// Ways of looking at one thing, each with an address of its own.

import { Link, useLocation } from "wouter";

interface TabsProps {
  /** What they are views of. */
  label: string;
  tabs: readonly (readonly [label: string, href: string])[];
}

export function Tabs({ label, tabs }: TabsProps) {
  const [path] = useLocation();
  return (
    <nav aria-label={label} className="-mt-2 flex flex-wrap gap-x-1 border-b border-line">
      {tabs.map(([name, href]) => (
        <Link
          key={name}
          href={href}
          aria-current={path === href ? "page" : undefined}
          className="-mb-px border-b-2 border-transparent px-3 py-1.5 text-sm whitespace-nowrap text-muted hover:text-text aria-[current=page]:border-accent aria-[current=page]:font-medium aria-[current=page]:text-text"
        >
          {name}
        </Link>
      ))}
    </nav>
  );
}
