// The catalogue: every component that any daemon carries, with what the daemons say about it.

import { useMemo } from "react";
import { Link } from "wouter";
import { useCarriers, useComponents } from "@/api/queries";
import type { ComponentRole, ComponentView } from "@/api/types";
import { Button, LinkButton } from "@/components/button";
import { CliButton } from "@/components/copy";
import { Data } from "@/components/data";
import { Input } from "@/components/field";
import { Empty, Page, Section } from "@/components/page";
import { count } from "@/lib/format";
import { useSearchState } from "@/lib/search";
import { counts } from "./carriers";

const ROLES: readonly (readonly [ComponentRole, string])[] = [
  ["source", "Sources"],
  ["transform", "Transforms"],
  ["destination", "Destinations"],
];

export default function Components() {
  const components = useComponents();
  return (
    <Page title="Components" actions={<CliButton command="mycelial components" />}>
      <Data query={components}>
        {(all) =>
          all.length === 0 ? (
            <Empty
              title="No components yet"
              action={
                <LinkButton href="/enrol" kind="main">
                  Enrol a daemon
                </LinkButton>
              }
            >
              Daemons tell what they can run when they report for the first time.
            </Empty>
          ) : (
            <Catalogue all={all} />
          )
        }
      </Data>
    </Page>
  );
}

function Catalogue({ all }: { all: readonly ComponentView[] }) {
  const [typed, setTyped] = useSearchState("q");
  const carriers = useCarriers().data;
  const carriedBy = useMemo(() => counts(carriers ?? []), [carriers]);
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  const found = all.filter(({ name, summary, role }) => {
    const text = `${name} ${summary} ${role}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  return (
    <>
      <Input
        type="search"
        data-search
        aria-label="Search components"
        placeholder="Search: postgres, filter, csv …"
        value={typed}
        onChange={(event) => setTyped(event.target.value)}
      />
      {found.length === 0 && (
        <Empty title="No component fits" action={<Button onClick={() => setTyped("")}>Clear the search</Button>} />
      )}
      {ROLES.map(([role, title]) => {
        const of = found.filter((component) => component.role === role);
        if (of.length === 0) return null;
        return (
          <Section key={role} title={title} aside={count(of.length, role)}>
            <ul className="grid gap-px overflow-hidden rounded-(--radius-lg) border border-line bg-surface [&>li]:shadow-[0_0_0_1px_var(--line)] sm:grid-cols-2 xl:grid-cols-3">
              {of.map((component) => (
                <li key={component.name} className="bg-surface">
                  <Link
                    href={`/components/${role}/${encodeURIComponent(component.name)}`}
                    className="block h-full px-3 py-2 hover:bg-hover focus-visible:-outline-offset-2"
                  >
                    <span className="font-mono text-sm font-medium">{component.name}</span>
                    <span className="block text-sm text-muted">{component.summary}</span>
                    {carriers && (
                      <span className="block text-xs text-muted">
                        on {count(carriedBy.get(`${role}/${component.name}`) ?? 0, "daemon")}
                      </span>
                    )}
                  </Link>
                </li>
              ))}
            </ul>
          </Section>
        );
      })}
    </>
  );
}
