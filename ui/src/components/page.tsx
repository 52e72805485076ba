// The frame of a page: its title, what can be done with it, sections, and what stands there while there is nothing.

import { type ReactNode, useEffect } from "react";
import { cx } from "@/lib/cx";

interface PageProps {
  title: string;
  /** Beside the title: a status, a count. */
  aside?: ReactNode;
  actions?: ReactNode;
  /** Uses the whole width; otherwise lines stay readable. */
  isWide?: boolean;
  children: ReactNode;
}

export function Page({ title, aside, actions, isWide = true, children }: PageProps) {
  useEffect(() => {
    document.title = `${title} · Mycelial`;
  }, [title]);
  return (
    <div
      className={cx("flex w-full flex-col gap-5 px-4 py-5 md:px-6", isWide ? "mx-auto max-w-[1600px]" : "max-w-4xl")}
    >
      <header className="flex min-h-8 flex-wrap items-center gap-x-4 gap-y-2">
        <h1 className="min-w-0 text-xl font-semibold break-words">{title}</h1>
        {aside}
        {actions && <div className="ml-auto flex flex-wrap items-center gap-2">{actions}</div>}
      </header>
      {children}
    </div>
  );
}

interface SectionProps {
  title: string;
  aside?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
}

export function Section({ title, aside, actions, children }: SectionProps) {
  return (
    <section className="flex min-w-0 flex-col gap-2" aria-label={title}>
      <div className="flex min-h-8 flex-wrap items-center gap-x-3 gap-y-1">
        <h2 className="text-base font-semibold">{title}</h2>
        {aside && <span className="text-sm text-muted">{aside}</span>}
        {actions && <div className="ml-auto flex items-center gap-2">{actions}</div>}
      </div>
      {children}
    </section>
  );
}

/** A surface that holds one thing. Never inside another. */
export const Panel = ({ className, children }: { className?: string; children: ReactNode }) => (
  <div className={cx("min-w-0 rounded-(--radius-lg) border border-line bg-surface", className)}>{children}</div>
);

/** Nothing here yet: what this is for, and the one thing to do about it. */
export function Empty({ title, children, action }: { title: string; children?: ReactNode; action?: ReactNode }) {
  return (
    <div className="flex flex-col items-center gap-3 rounded-(--radius-lg) border border-dashed border-line-strong/50 px-6 py-12 text-center">
      <p className="text-lg font-semibold">{title}</p>
      {children && <div className="max-w-prose text-muted">{children}</div>}
      {action}
    </div>
  );
}

/** Something is being fetched; appears only when that takes a while. */
export function Loading({ what = "Loading" }: { what?: string }) {
  return (
    <p role="status" className="loading py-8 text-center text-muted">
      {what} …
    </p>
  );
}
