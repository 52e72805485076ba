// Filters that somebody wants to come back to, kept in this browser.

import { useStored } from "@/lib/stored";

export interface View {
  filter: string;
  sort: string;
}

const VIEWS_MAX = 12;

function areViews(value: unknown): value is View[] {
  return (
    Array.isArray(value) &&
    value.every((view: Partial<View>) => typeof view?.filter === "string" && typeof view.sort === "string")
  );
}

const isSame = (a: View, b: View) => a.filter === b.filter && a.sort === b.sort;

export function useViews() {
  const [views, setViews] = useStored<View[]>("mycelial-daemon-views", [], areViews);
  return {
    views,
    add: (view: View) => setViews([...views.filter((each) => !isSame(each, view)), view].slice(-VIEWS_MAX)),
    drop: (view: View) => setViews(views.filter((each) => !isSame(each, view))),
  };
}
