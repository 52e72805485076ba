// The command palette: pages, daemons, workflows, components and actions by a few letters.

import { useQueryClient } from "@tanstack/react-query";
import { Dialog } from "radix-ui";
import { useId, useMemo, useState } from "react";
import { useLocation } from "wouter";
import { useComponents, useDaemons, useWorkflows } from "@/api/queries";
import { logOut } from "@/api/session";
import { useMay } from "@/components/allowed";
import { useFocusBack } from "@/components/dialog";
import { cx } from "@/lib/cx";
import { SETTINGS_TABS } from "@/pages/settings/tabs";
import { type Entry, rank } from "./rank";
import { useNavigation } from "./routes";
import { chooseTheme } from "./theme";

const SHOWN_MAX = 12;
const part = encodeURIComponent;

export function useEntries(go: (href: string) => void): readonly Entry[] {
  const queries = useQueryClient();
  const navigation = useNavigation();
  const daemons = useDaemons().data;
  const workflows = useWorkflows().data;
  const components = useComponents().data;
  const mayCommand = useMay("operator");
  const mayEnrol = useMay("operator", true);
  return useMemo(() => {
    const link = (kind: string, name: string, href: string): Entry => ({ kind, name, run: () => go(href) });
    return [
      ...navigation.map(({ label, href }) => link("page", label, href)),
      ...(mayEnrol ? [link("action", "Enrol a daemon", "/enrol")] : []),
      ...(mayCommand ? [link("action", "New workflow", "/workflows/new")] : []),
      ...(["light", "dark", "system"] as const).map(
        (theme): Entry => ({ kind: "action", name: `Theme: ${theme}`, run: () => chooseTheme(theme) }),
      ),
      { kind: "action", name: "Log out", run: () => void logOut(queries) },
      ...(workflows ?? []).map(({ name }) => link("workflow", name, `/workflows/${part(name)}`)),
      ...(daemons ?? []).map(({ name }) => link("daemon", name, `/daemons/${part(name)}`)),
      ...(components ?? []).map(({ role, name }) => link(role, name, `/components/${role}/${part(name)}`)),
      // Behind what has the name itself.
      ...SETTINGS_TABS.map(([label, href]) => link("page", `Settings: ${label}`, href)),
      link("page", "Alert rules", "/alerts/rules"),
      ...(workflows ?? []).flatMap(({ name }) => [
        link("action", `Edit ${name}`, `/workflows/${part(name)}/edit`),
        link("action", `Revisions of ${name}`, `/workflows/${part(name)}/revisions`),
      ]),
      ...(mayCommand ? (daemons ?? []) : []).map(({ name }) =>
        link("action", `Command daemon ${name}`, `/daemons/${part(name)}?command=1`),
      ),
    ];
  }, [navigation, daemons, workflows, components, go, queries, mayCommand, mayEnrol]);
}

export default function Palette({ onClose }: { onClose: () => void }) {
  const [, go] = useLocation();
  const entries = useEntries(go);
  const [typed, setTyped] = useState("");
  const [at, setAt] = useState(0);
  const list = useId();
  const focus = useFocusBack();
  const found = useMemo(() => rank(entries, typed).slice(0, SHOWN_MAX), [entries, typed]);
  const choose = (entry: Entry | undefined) => {
    if (!entry) return;
    onClose();
    entry.run();
  };
  const onKeyDown = (event: React.KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step !== undefined && found.length > 0) {
      event.preventDefault();
      setAt((at + step + found.length) % found.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      choose(found[at]);
    }
  };
  return (
    <Dialog.Root open onOpenChange={(open) => !open && onClose()}>
      <Dialog.Portal>
        <Dialog.Overlay className="fixed inset-0 z-40 bg-black/50" />
        <Dialog.Content
          {...focus}
          aria-describedby={undefined}
          className="fixed top-[12vh] left-1/2 z-50 flex w-[min(36rem,calc(100vw-2rem))] -translate-x-1/2 flex-col overflow-hidden rounded-(--radius-lg) border border-line bg-raised shadow-raised"
        >
          <Dialog.Title className="sr-only">Go anywhere, do anything</Dialog.Title>
          <input
            role="combobox"
            aria-expanded="true"
            aria-controls={list}
            aria-activedescendant={found[at] ? `${list}-${at}` : undefined}
            aria-label="Page, daemon, workflow, component or action"
            placeholder="Page, daemon, workflow, component or action"
            autoComplete="off"
            className="h-11 border-b border-line bg-transparent px-4 text-base focus-visible:-outline-offset-2"
            value={typed}
            onChange={(event) => {
              setTyped(event.target.value);
              setAt(0);
            }}
            onKeyDown={onKeyDown}
          />
          <div role="listbox" id={list} aria-label="What fits" className="max-h-[50vh] overflow-y-auto p-1.5">
            {found.map((entry, index) => (
              // biome-ignore lint/a11y/useKeyWithClickEvents: the keys are the field's, as the combobox pattern wants it
              <div
                key={`${entry.kind} ${entry.name}`}
                role="option"
                tabIndex={-1}
                id={`${list}-${index}`}
                aria-selected={index === at}
                onClick={() => choose(entry)}
                onMouseMove={() => setAt(index)}
                className={cx(
                  "flex cursor-pointer items-center justify-between gap-3 rounded-(--radius) px-2.5 py-1.5 text-sm",
                  index === at && "bg-accent-soft text-accent",
                )}
              >
                <span className="min-w-0 truncate">{entry.name}</span>
                <span className={cx("text-xs", index === at ? "text-accent" : "text-muted")}>{entry.kind}</span>
              </div>
            ))}
          </div>
          {found.length === 0 && (
            <p role="status" className="px-4 pb-4 text-sm text-muted">
              Nothing fits.
            </p>
          )}
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}
