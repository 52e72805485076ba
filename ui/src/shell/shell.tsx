// What stands around every page: navigation, how fresh the data is, and who is logged in. Knows no page's content.

import { useQueryClient } from "@tanstack/react-query";
import { LogOut, Menu as MenuIcon, Moon, Search, Sun, SunMoon, X } from "lucide-react";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { Link, useLocation } from "wouter";
import { useLive } from "@/api/live";
import { useInfo } from "@/api/queries";
import { logOut, useUser } from "@/api/session";
import { IconButton } from "@/components/button";
import { Status, type Tone } from "@/components/status";
import { tell } from "@/components/toast";
import { cx } from "@/lib/cx";
import { moment, sentence } from "@/lib/format";
import { MODIFIER } from "./keyboard";
import { useNavigation } from "./routes";
import { chooseTheme, type Theme, useTheme } from "./theme";

const LINKS: Record<string, [Tone, string]> = {
  connecting: ["off", "connecting"],
  on: ["good", "live"],
  off: ["bad", "not connected"],
};

const THEMES: Record<Theme, { next: Theme; Icon: typeof Sun }> = {
  system: { next: "light", Icon: SunMoon },
  light: { next: "dark", Icon: Sun },
  dark: { next: "system", Icon: Moon },
};

function Navigation({ onGo }: { onGo: () => void }) {
  const [path] = useLocation();
  const isHere = (href: string) => (href === "/" ? path === "/" : path === href || path.startsWith(`${href}/`));
  return (
    <nav aria-label="Sections">
      <ul className="flex flex-col gap-0.5">
        {useNavigation().map(({ href, label, Icon }) => (
          <li key={href}>
            <Link
              href={href}
              onClick={onGo}
              aria-current={isHere(href) ? "page" : undefined}
              className="flex h-8 items-center gap-2.5 rounded-(--radius) px-2.5 text-sm text-muted hover:bg-hover hover:text-text aria-[current=page]:bg-accent-soft aria-[current=page]:font-medium aria-[current=page]:text-accent"
            >
              <Icon className="size-4 shrink-0" aria-hidden="true" />
              {label}
            </Link>
          </li>
        ))}
      </ul>
    </nav>
  );
}

function Brand() {
  return (
    <Link href="/" className="flex items-center gap-2 rounded-(--radius) px-2 py-1 text-base font-semibold">
      <img src="/icon.svg" alt="" width="22" height="22" />
      Mycelial
    </Link>
  );
}

function Foot() {
  const link = useLive((state) => state.link);
  const info = useInfo();
  const queries = useQueryClient();
  const user = useUser((state) => state.user);
  const theme = useTheme((state) => state.theme);
  const { next, Icon } = THEMES[theme];
  const [tone, word] = LINKS[link] ?? ["off", ""];
  return (
    <div className="mt-auto flex flex-col gap-1 border-t border-line px-2 pt-2 text-xs text-muted">
      <div className="flex items-center">
        <Status tone={tone} className="mr-auto">
          {word}
        </Status>
        <IconButton label={`Theme: ${theme}`} onClick={() => chooseTheme(next)}>
          <Icon aria-hidden="true" />
        </IconButton>
        <IconButton
          label="Log out"
          onClick={() =>
            void logOut(queries).catch((cause: Error) => tell(`Logging out did not work: ${cause.message}.`))
          }
        >
          <LogOut aria-hidden="true" />
        </IconButton>
      </div>
      {user && (
        <p className="truncate" title={user.scope === null ? undefined : `Sees ${user.scope}`}>
          {user.name}, {user.role}
          {user.scope !== null && `, sees ${user.scope}`}
        </p>
      )}
      {info.data && (
        <p className="pb-1" title={`Fleet ${info.data.fleet}, mycelial-plane ${info.data.version}`}>
          <span className="block truncate">{info.data.version}</span>
          <span className="block truncate">fleet {info.data.fleet}</span>
        </p>
      )}
    </div>
  );
}

/** Says that what is shown is from earlier. */
function Away() {
  const link = useLive((state) => state.link);
  const since = useLive((state) => state.offSince);
  const cause = useLive((state) => state.offCause);
  const isAway = link === "off" && since !== null;
  return (
    <div role="alert">
      {isAway && (
        <p className="border-b border-warn/40 bg-warn-soft px-4 py-2 text-sm md:px-6">
          <strong>
            {cause === ""
              ? `Nothing has been heard from the plane since ${moment(since, Date.now())}.`
              : sentence(`No live data: ${cause}`)}
          </strong>{" "}
          {cause === "" ? "What is shown is from then." : `What is shown is from ${moment(since, Date.now())}.`} This
          page tries again by itself, and daemons work on without {cause === "" ? "the plane" : "it"}.
        </p>
      )}
    </div>
  );
}

export function Shell({ onSearch, children }: { onSearch: () => void; children: ReactNode }) {
  const [isMenuOpen, setMenuOpen] = useState(false);
  const [path] = useLocation();
  const isAway = useLive((state) => state.link === "off");
  const main = useRef<HTMLElement>(null);
  const isFirst = useRef(true);
  // biome-ignore lint/correctness/useExhaustiveDependencies: runs when the page changes
  useEffect(() => {
    // Whoever moved on goes on from the new content; at the start the skip link comes first.
    if (!isFirst.current) main.current?.focus({ preventScroll: true });
    isFirst.current = false;
    window.scrollTo(0, 0);
  }, [path]);
  return (
    <div className="flex min-h-dvh max-md:flex-col">
      <a
        href="#main"
        className="sr-only z-50 rounded-(--radius) bg-raised focus:not-sr-only focus:absolute focus:top-2 focus:left-2 focus:px-3! focus:py-2!"
      >
        Skip to content
      </a>
      <header className="flex items-center justify-between border-b border-line bg-surface px-2 py-1.5 md:hidden">
        <Brand />
        <IconButton
          label={isMenuOpen ? "Close menu" : "Open menu"}
          aria-expanded={isMenuOpen}
          onClick={() => setMenuOpen(!isMenuOpen)}
        >
          {isMenuOpen ? <X aria-hidden="true" /> : <MenuIcon aria-hidden="true" />}
        </IconButton>
      </header>
      <aside
        aria-label="Navigation and status"
        className={cx(
          "flex shrink-0 flex-col gap-3 border-line bg-surface p-2 md:sticky md:top-0 md:h-dvh md:w-52 md:overflow-y-auto md:border-r",
          isMenuOpen ? "max-md:border-b" : "max-md:hidden",
        )}
      >
        <div className="pt-1 max-md:hidden">
          <Brand />
        </div>
        <button
          type="button"
          onClick={onSearch}
          className="flex h-8 items-center gap-2 rounded-(--radius) border border-line bg-bg px-2.5 text-sm text-muted hover:bg-hover"
        >
          <Search className="size-4" aria-hidden="true" />
          Go to …<kbd className="ml-auto font-mono text-xs">{MODIFIER} K</kbd>
        </button>
        <Navigation onGo={() => setMenuOpen(false)} />
        <Foot />
      </aside>
      <div className="flex min-w-0 flex-1 flex-col">
        <Away />
        <main
          id="main"
          ref={main}
          tabIndex={-1}
          data-stale={isAway || undefined}
          className="flex min-w-0 flex-1 flex-col outline-none"
        >
          {children}
        </main>
      </div>
    </div>
  );
}
