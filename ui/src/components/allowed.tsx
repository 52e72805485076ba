// What not everybody may do: there for those who may, and a word of why for those who may not.

import { Lock } from "lucide-react";
import type { ReactNode } from "react";
import { reaches, useUser } from "@/api/session";
import type { Rank } from "@/api/types";

/** `isWhole`: it concerns the whole fleet, so whoever sees a part of it may not. */
export function useMay(needed: Rank, isWhole = false) {
  const user = useUser((state) => state.user);
  return user !== null && reaches(user.role, needed) && !(isWhole && user.scope !== null);
}

interface AllowedProps {
  needs: Rank;
  isWhole?: boolean;
  /** What it is about: "Deploying". */
  what: string;
  children: ReactNode;
}

export function Allowed({ needs, isWhole = false, what, children }: AllowedProps) {
  const user = useUser((state) => state.user);
  if (useMay(needs, isWhole)) return children;
  const why =
    user && reaches(user.role, needs)
      ? `${what} is for those who see the whole fleet; you see ${user.scope}.`
      : `${what} needs the role ${needs}; you are ${user?.role ?? "nobody"}.`;
  return (
    <span className="inline-flex items-center gap-1.5 text-sm text-muted">
      <Lock className="size-4 shrink-0" aria-hidden="true" />
      {why}
    </span>
  );
}
