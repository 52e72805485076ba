// The workflow as a list, and what can be added to it: everything that the canvas can do, for the keyboard alone.

import { type KeyboardEvent, useEffect, useRef, useState } from "react";
import type { ComponentRole, ComponentView, Problem } from "@/api/types";
import { DRAG_TYPE } from "@/canvas/drag";
import { ROLE_ICONS } from "@/canvas/roles";
import { Input } from "@/components/field";
import { Status } from "@/components/status";
import { cx } from "@/lib/cx";
import { ROLES } from "@/workflow/graph";
import { stretched, toggled } from "./choosing";
import { problemsOf } from "./problems";
import type { Workbench } from "./state";

const TITLES: Record<ComponentRole, string> = {
  source: "Sources",
  transform: "Transforms",
  destination: "Destinations",
};
/** How far a key moves a node on the canvas, in pixels. */
const STEP_PX = 20;
const STEPS: Record<string, readonly [x: number, y: number]> = {
  ArrowLeft: [-STEP_PX, 0],
  ArrowRight: [STEP_PX, 0],
  ArrowUp: [0, -STEP_PX],
  ArrowDown: [0, STEP_PX],
};

const isMore = (event: KeyboardEvent) => event.key === " " && (event.ctrlKey || event.metaKey);

/** The next or last one that can take the focus, inside the same list. */
function step(event: KeyboardEvent<HTMLElement>, by: 1 | -1) {
  const all = [...event.currentTarget.querySelectorAll<HTMLElement>("button")];
  const next = all[all.indexOf(document.activeElement as HTMLElement) + by];
  if (!next) return null;
  event.preventDefault();
  next.focus();
  return next;
}

export function Outline({ bench, problems }: { bench: Workbench; problems: readonly Problem[] }) {
  const { graph, selected, layout } = bench;
  const onKeyDown = (event: KeyboardEvent<HTMLElement>) => {
    const id = (event.target as HTMLElement).closest<HTMLElement>("[data-node]")?.dataset.node;
    const move = STEPS[event.key];
    if (id && event.altKey && move) {
      event.preventDefault();
      const spot = layout[id] ?? { x: 0, y: 0 };
      bench.move({ [id]: { x: spot.x + move[0], y: spot.y + move[1] } }, `move ${id}`);
    } else if (["ArrowDown", "ArrowUp"].includes(event.key) && !event.altKey) {
      const next = step(event, event.key === "ArrowDown" ? 1 : -1)?.dataset.node;
      if (id && next && event.shiftKey) bench.select(stretched(selected, id, next));
    } else if (id && isMore(event)) {
      event.preventDefault();
      bench.select(toggled(selected, id));
    } else if (id && event.key === "Delete") {
      event.preventDefault();
      bench.remove(selected.includes(id) ? selected : [id]);
    }
  };
  // Browsers press a button when the space bar comes up again.
  const onKeyUp = (event: KeyboardEvent) => isMore(event) && event.preventDefault();
  return (
    <section aria-label="Outline" className="flex min-h-0 flex-col gap-2">
      <h2 className="px-3 pt-3 text-sm font-semibold">Outline</h2>
      {graph.nodes.length === 0 && <p className="px-3 text-sm text-muted">Add a source to begin with.</p>}
      <div
        role="toolbar"
        aria-label="Nodes"
        aria-orientation="vertical"
        className="flex flex-col gap-2 overflow-y-auto px-1.5 pb-2"
        onKeyDown={onKeyDown}
        onKeyUp={onKeyUp}
      >
        {ROLES.map((role) => {
          const nodes = graph.nodes.filter((node) => node.role === role);
          if (nodes.length === 0) return null;
          const Icon = ROLE_ICONS[role];
          return (
            <ul key={role} aria-label={TITLES[role]}>
              {nodes.map((node) => {
                const count = problemsOf(problems, node).length;
                return (
                  <li key={node.id}>
                    <button
                      type="button"
                      data-node={node.id}
                      aria-pressed={selected.includes(node.id)}
                      title="Shift with an arrow selects on, Ctrl with Space one more, Alt with an arrow moves it on the canvas, Delete deletes it"
                      onClick={(event) => {
                        const isOneMore = event.shiftKey || event.ctrlKey || event.metaKey;
                        bench.select(isOneMore ? toggled(selected, node.id) : [node.id]);
                      }}
                      className="flex w-full items-center gap-2 rounded-(--radius) px-2 py-1 text-left text-sm hover:bg-hover aria-pressed:bg-accent-soft"
                    >
                      <Icon className="size-3.5 shrink-0 text-muted" aria-hidden="true" />
                      <span className="min-w-0 flex-1">
                        <span className="block truncate">{node.id}</span>
                        {node.from.length > 0 && (
                          <span className="block truncate text-xs text-muted">from {node.from.join(", ")}</span>
                        )}
                      </span>
                      {count > 0 && <Status tone="bad">{String(count)}</Status>}
                    </button>
                  </li>
                );
              })}
            </ul>
          );
        })}
      </div>
    </section>
  );
}

/** How well a component fits what is searched: 0 not at all. */
function rank(component: ComponentView, search: string) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  let points = 1;
  for (const word of words) {
    if (component.name.startsWith(word)) points += 3;
    else if (component.name.includes(word) || component.role.startsWith(word)) points += 2;
    else if (component.summary.toLowerCase().includes(word)) points += 1;
    else return 0;
  }
  return points;
}

export function Palette({ bench, onAdded }: { bench: Workbench; onAdded: (id: string) => void }) {
  const [search, setSearch] = useState("");
  const ranked = bench.components.map((component) => ({ component, points: rank(component, search) }));
  const found = ranked.filter(({ points }) => points > 0).sort((a, b) => (search ? b.points - a.points : 0));
  const groups = ROLES.map((role) => [role, found.filter(({ component }) => component.role === role)] as const);
  const list = useRef<HTMLDivElement>(null);
  const add = (component: ComponentView) => {
    onAdded(bench.add(component));
    setSearch("");
  };
  const first = found[0]?.component;
  // What was found begins at the top.
  // biome-ignore lint/correctness/useExhaustiveDependencies: runs when the search changes
  useEffect(() => {
    list.current?.scrollTo(0, 0);
  }, [search]);
  return (
    <section aria-label="Add a node" className="flex min-h-0 flex-1 flex-col gap-2 border-t border-line pt-3">
      <div className="px-3">
        <Input
          data-search
          type="search"
          aria-label="Add a node: search components"
          placeholder="Add: search, or drag"
          value={search}
          onChange={(event) => setSearch(event.target.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter" && first) {
              event.preventDefault();
              add(first);
            } else if (event.key === "ArrowDown") {
              event.preventDefault();
              list.current?.querySelector<HTMLElement>("button")?.focus();
            }
          }}
        />
        {search !== "" && (
          <p role="status" className="pt-1 text-xs text-muted">
            {first ? `Enter adds ${first.role} ${first.name}` : "No component is called that."}
          </p>
        )}
      </div>
      <div
        ref={list}
        role="toolbar"
        aria-label="Components"
        aria-orientation="vertical"
        className="flex min-h-24 flex-1 flex-col gap-2 overflow-y-auto px-1.5 pb-3"
        onKeyDown={(event) => {
          if (event.key === "ArrowDown") step(event, 1);
          else if (event.key === "ArrowUp") step(event, -1);
        }}
      >
        {groups.map(([role, components]) => {
          if (components.length === 0) return null;
          const Icon = ROLE_ICONS[role];
          return (
            <div key={role}>
              <h3 className="px-2 pb-0.5 text-xs font-medium text-muted">{TITLES[role]}</h3>
              <ul aria-label={`${TITLES[role]} to add`}>
                {components.map(({ component }) => (
                  <li key={component.name}>
                    <button
                      type="button"
                      draggable
                      title={component.summary}
                      onDragStart={(event) => {
                        event.dataTransfer.setData(DRAG_TYPE, `${role}/${component.name}`);
                        event.dataTransfer.effectAllowed = "copy";
                      }}
                      onClick={() => add(component)}
                      className={cx(
                        "flex w-full items-center gap-2 rounded-(--radius) px-2 py-1 text-left text-sm hover:bg-hover",
                        search !== "" && component === first && "bg-accent-soft",
                      )}
                    >
                      <Icon className="size-3.5 shrink-0 text-muted" aria-hidden="true" />
                      <span className="truncate">{component.name}</span>
                      <span className="sr-only">{role}</span>
                    </button>
                  </li>
                ))}
              </ul>
            </div>
          );
        })}
      </div>
    </section>
  );
}
