// Every page: its address, and where it stands in the navigation. One line makes a page.

import { Activity, type LucideIcon } from "lucide-react";
import { type ComponentType, type LazyExoticComponent, lazy } from "react";

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
  page("/workflows/new", () => import("@/pages/editor")),
  page("/workflows/:name/edit", () => import("@/pages/editor")),
  page("/workflows/:name", () => import("@/pages/run")),
];

export interface NavItem {
  href: string;
  label: string;
  Icon: LucideIcon;
  /** The second key after `g` that goes there. */
  key: string;
}

export const NAVIGATION: readonly NavItem[] = [{ href: "/", label: "Overview", Icon: Activity, key: "o" }];
