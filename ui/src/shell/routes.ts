// Every page: its address, and where it stands in the navigation. One line makes a page.

import {
  Activity,
  ArrowLeftRight,
  Bell,
  Blocks,
  Cpu,
  KeyRound,
  ListChecks,
  type LucideIcon,
  ScrollText,
  Settings,
  ShieldCheck,
  Workflow,
} from "lucide-react";
import { type ComponentType, type LazyExoticComponent, lazy, useMemo } from "react";
import { useSeesAll } from "@/api/session";

interface Route {
  path: string;
  Component: LazyExoticComponent<ComponentType>;
}

const page = (path: string, load: () => Promise<{ default: ComponentType }>): Route => ({
  path,
  Component: lazy(load),
});

/** The first that fits is shown. */
export const ROUTES: readonly Route[] = [
  page("/", () => import("@/pages/overview")),
  page("/daemons", () => import("@/pages/daemons")),
  page("/daemons/:name", () => import("@/pages/daemon")),
  page("/enrol", () => import("@/pages/enrol")),
  page("/enrol/approval", () => import("@/pages/enrol/approval")),
  page("/workflows", () => import("@/pages/workflows")),
  page("/workflows/new", () => import("@/pages/editor")),
  page("/workflows/:name/edit", () => import("@/pages/editor")),
  page("/workflows/:name/letters", () => import("@/pages/letters")),
  page("/secrets", () => import("@/pages/secrets")),
  page("/workflows/:name/revisions", () => import("@/pages/revisions")),
  page("/workflows/:name", () => import("@/pages/run")),
  page("/rollouts", () => import("@/pages/rollouts")),
  page("/rollouts/:id", () => import("@/pages/rollouts/rollout")),
  page("/streams", () => import("@/pages/streams")),
  page("/components", () => import("@/pages/components")),
  page("/components/:role/:name", () => import("@/pages/components/component")),
  page("/alerts", () => import("@/pages/alerts")),
  page("/alerts/rules", () => import("@/pages/alerts/rules")),
  page("/logs/events", () => import("@/pages/logs/events")),
  page("/logs", () => import("@/pages/logs")),
  page("/audit", () => import("@/pages/audit")),
  page("/commands/:id", () => import("@/pages/commands")),
  page("/settings/tokens", () => import("@/pages/tokens")),
  page("/settings/broker", () => import("@/pages/settings/broker")),
  page("/settings/backup", () => import("@/pages/settings/backup")),
  page("/settings/users", () => import("@/pages/users")),
  page("/settings", () => import("@/pages/settings")),
];

export interface NavItem {
  href: string;
  label: string;
  Icon: LucideIcon;
  /** The key after `g` that goes there. */
  key: string;
  /** It is about the whole fleet: not for those who see a part of it. */
  isWhole?: boolean;
}

const NAVIGATION: readonly NavItem[] = [
  { href: "/", label: "Overview", Icon: Activity, key: "o" },
  { href: "/daemons", label: "Daemons", Icon: Cpu, key: "d" },
  { href: "/workflows", label: "Workflows", Icon: Workflow, key: "w" },
  { href: "/rollouts", label: "Rollouts", Icon: ListChecks, key: "r" },
  { href: "/streams", label: "Streams", Icon: ArrowLeftRight, key: "s" },
  { href: "/alerts", label: "Alerts", Icon: Bell, key: "a" },
  { href: "/logs", label: "Logs", Icon: ScrollText, key: "l" },
  { href: "/audit", label: "Audit", Icon: ShieldCheck, key: "u", isWhole: true },
  { href: "/secrets", label: "Secrets", Icon: KeyRound, key: "e" },
  { href: "/components", label: "Components", Icon: Blocks, key: "c" },
  { href: "/settings", label: "Settings", Icon: Settings, key: "," },
];

/** What there is for this person. */
export function useNavigation() {
  const seesAll = useSeesAll();
  return useMemo(() => NAVIGATION.filter(({ isWhole }) => seesAll || !isWhole), [seesAll]);
}
