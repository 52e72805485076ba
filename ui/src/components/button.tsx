// Buttons, and links that look like them. Never without a name.

import type { ButtonHTMLAttributes, ReactNode } from "react";
import { Link } from "wouter";
import { cx } from "@/lib/cx";

type Kind = "plain" | "main" | "danger" | "quiet";

const KINDS: Record<Kind, string> = {
  plain: "border border-line-strong/60 bg-surface text-text hover:bg-hover",
  main: "border border-transparent bg-accent text-on-accent hover:bg-accent-hover font-medium",
  danger: "border border-bad bg-surface text-bad hover:bg-bad-soft font-medium",
  // The class tells tables to let its text begin where other cells' does.
  quiet: "is-quiet border border-transparent bg-transparent text-muted hover:bg-hover hover:text-text",
};

/** For what is a link out of the page. */
export const buttonLooks = (kind: Kind, className?: string) =>
  cx(
    "inline-flex h-8 shrink-0 items-center justify-center gap-1.5 whitespace-nowrap rounded-(--radius) px-3 text-sm no-underline transition-colors",
    "disabled:cursor-not-allowed disabled:border-line disabled:bg-sunken disabled:text-muted",
    "[&_svg]:size-4 [&_svg]:shrink-0",
    KINDS[kind],
    className,
  );

interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  kind?: Kind;
  /** Something is under way: the button waits and says so to screen readers. */
  busy?: boolean;
}

export function Button({ kind = "plain", busy = false, className, disabled, type, ...rest }: ButtonProps) {
  return (
    <button
      type={type ?? "button"}
      aria-busy={busy || undefined}
      disabled={disabled || busy}
      className={buttonLooks(kind, className)}
      {...rest}
    />
  );
}

interface IconButtonProps extends ButtonProps {
  /** Its name, shown on hover. */
  label: string;
  children: ReactNode;
}

export function IconButton({ label, className, kind = "quiet", ...rest }: IconButtonProps) {
  return <Button kind={kind} aria-label={label} title={label} className={cx("w-8 px-0!", className)} {...rest} />;
}

interface LinkButtonProps {
  href: string;
  kind?: Kind;
  className?: string;
  children: ReactNode;
}

export function LinkButton({ href, kind = "plain", className, children }: LinkButtonProps) {
  return (
    <Link href={href} className={buttonLooks(kind, className)}>
      {children}
    </Link>
  );
}
