// What concerns the whole fleet: there for those who see all of it, and a word of why for those who see a part.

import type { ReactNode } from "react";
import { useUser } from "@/api/session";
import { LinkButton } from "./button";
import { Empty } from "./page";

/** `what` is what it is about: "Alerts". */
export function Whole({ what, children }: { what: string; children: ReactNode }) {
  const scope = useUser(({ user }) => user?.scope ?? null);
  if (scope === null) return children;
  return (
    <Empty title={`${what} are about the whole fleet`} action={<LinkButton href="/daemons">Your daemons</LinkButton>}>
      You see the part of it that <code className="font-mono text-xs">{scope}</code> chooses. Whoever sees all of it can
      tell you, and an admin can change what you see.
    </Empty>
  );
}
