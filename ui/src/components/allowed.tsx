// What not everybody may do: there for those who may, and a word of why for those who may not.

import { Lock } from "lucide-react";
import type { ReactNode } from "react";
import { reaches, useUser } from "@/api/session";
import type { Rank } from "@/api/types";

export function useMay(needed: Rank) {
  const user = useUser((state) => state.user);
  return user !== null && reaches(user.role, needed);
}

/** `what` is what it is about: "Deploying". */
export function Allowed({ needs, what, children }: { needs: Rank; what: string; children: ReactNode }) {
  const role = useUser((state) => state.user?.role);
  if (useMay(needs)) return children;
  return (
    <span className="inline-flex items-center gap-1.5 text-sm text-muted">
      <Lock className="size-4 shrink-0" aria-hidden="true" />
      {what} needs the role {needs}; you are {role ?? "nobody"}.
    </span>
  );
}
