// Form fields: a visible label, a hint, and the error where the mistake is.

import {
  type ComponentProps,
  cloneElement,
  type InputHTMLAttributes,
  type ReactElement,
  type ReactNode,
  type SelectHTMLAttributes,
  useId,
} from "react";
import { cx } from "@/lib/cx";

const BOX =
  "w-full rounded-(--radius) border border-line-strong bg-surface px-2.5 text-sm text-text aria-invalid:border-bad disabled:bg-sunken disabled:text-muted";

export const Input = ({ className, ...rest }: InputHTMLAttributes<HTMLInputElement>) => (
  <input className={cx(BOX, "h-8", className)} autoComplete="off" {...rest} />
);

export const Select = ({ className, ...rest }: SelectHTMLAttributes<HTMLSelectElement>) => (
  <select className={cx(BOX, "h-8", className)} {...rest} />
);

export const Textarea = ({ className, ...rest }: ComponentProps<"textarea">) => (
  <textarea className={cx(BOX, "py-1.5 font-mono leading-5", className)} spellCheck={false} {...rest} />
);

type Control = ReactElement<{
  id?: string;
  "aria-describedby"?: string | undefined;
  "aria-invalid"?: boolean | undefined;
}>;

interface FieldProps {
  label: string;
  hint?: ReactNode;
  /** What is wrong with what stands there; empty: nothing. */
  error?: string | undefined;
  className?: string;
  /** One Input, Select or Textarea. */
  children: Control;
}

export function Field({ label, hint, error, className, children }: FieldProps) {
  const id = useId();
  const notes = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ");
  return (
    <div className={cx("flex min-w-0 flex-col gap-1", className)}>
      <label htmlFor={id} className="text-sm font-medium">
        {label}
      </label>
      {cloneElement(children, { id, "aria-describedby": notes || undefined, "aria-invalid": error ? true : undefined })}
      {hint && (
        <p id={`${id}-hint`} className="text-xs text-muted">
          {hint}
        </p>
      )}
      {error && (
        <p id={`${id}-error`} className="text-xs text-bad">
          {error}
        </p>
      )}
    </div>
  );
}
