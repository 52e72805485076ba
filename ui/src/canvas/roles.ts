// The picture of each role. Apart from the canvas, so that a list of nodes does not load one.

import { Database, Funnel, LogIn, type LucideIcon } from "lucide-react";
import type { ComponentRole } from "@/api/types";

export const ROLE_ICONS: Record<ComponentRole, LucideIcon> = {
  source: LogIn,
  transform: Funnel,
  destination: Database,
};
