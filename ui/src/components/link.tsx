// A link inside the page's text.

import type { ReactNode } from "react";
import { Link } from "wouter";

export const TextLink = ({ href, children }: { href: string; children: ReactNode }) => (
  <Link href={href} className="text-accent underline decoration-accent/40 underline-offset-2 hover:decoration-current">
    {children}
  </Link>
);
