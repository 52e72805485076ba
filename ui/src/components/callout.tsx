// What somebody has to know: a remark in a frame, and a failure with what to do about it.

import { CircleAlert, Info, TriangleAlert } from "lucide-react";
import type { ReactNode } from "react";
import { Failed } from "@/api/client";
import type { Problem } from "@/api/types";
import { cx } from "@/lib/cx";
import { sentence } from "@/lib/format";
import { Button } from "./button";

type CalloutTone = "bad" | "warn" | "info";

const LOOKS = {
  bad: { colours: "border-bad/40 bg-bad-soft", mark: "text-bad", Icon: CircleAlert },
  warn: { colours: "border-warn/40 bg-warn-soft", mark: "text-warn", Icon: TriangleAlert },
  info: { colours: "border-info/40 bg-info-soft", mark: "text-info", Icon: Info },
};

interface CalloutProps {
  tone: CalloutTone;
  title: string;
  children?: ReactNode;
  actions?: ReactNode;
  /** Says it at once to screen readers. */
  isUrgent?: boolean;
}

export function Callout({ tone, title, children, actions, isUrgent = false }: CalloutProps) {
  const { colours, mark, Icon } = LOOKS[tone];
  return (
    <div
      role={isUrgent ? "alert" : undefined}
      className={cx("flex flex-wrap gap-3 rounded-(--radius) border px-3 py-2.5", colours)}
    >
      <Icon className={cx("mt-0.5 size-4.5 shrink-0", mark)} aria-hidden="true" />
      <div className="min-w-0 flex-1 basis-48">
        <p className="font-medium break-words">{title}</p>
        {children && <div className="mt-0.5 text-sm break-words">{children}</div>}
      </div>
      {actions && <div className="flex shrink-0 items-start gap-2">{actions}</div>}
    </div>
  );
}

/** Where and what, for every problem of a text. */
export function Problems({ problems }: { problems: Problem[] }) {
  return (
    <ul className="mt-1 flex flex-col gap-1">
      {problems.map((problem) => (
        <li key={`${problem.place}:${problem.line}:${problem.message}`}>
          {problem.line > 0 && <span className="tabular text-muted">line {problem.line}, </span>}
          {problem.place && <code className="font-mono text-xs">{problem.place}</code>} {problem.message}
          {problem.hint && <span className="text-muted">; {problem.hint}</span>}
        </li>
      ))}
    </ul>
  );
}

/** A call that did not work. */
export function Failure({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const known = error instanceof Failed ? error : null;
  const message = error instanceof Error ? error.message : String(error);
  return (
    <Callout
      tone="bad"
      isUrgent
      title={sentence(message)}
      actions={onRetry && <Button onClick={onRetry}>Try again</Button>}
    >
      {known?.hint && <p>{sentence(known.hint)}</p>}
      {known && known.problems.length > 0 && <Problems problems={known.problems} />}
    </Callout>
  );
}
