// Storing rules: the plane takes all of one's own at once.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { putRules } from "@/api/actions";
import { keys } from "@/api/keys";
import type { AlertRule, RuleShown } from "@/api/types";
import { withRule } from "./words";

/** Stores the rules with the one called `name` changed; `null`: without it. */
export function useChangeRule(all: readonly RuleShown[]) {
  const queries = useQueryClient();
  return useMutation({
    // What is known now: a change may be undone long after this was drawn.
    mutationFn: ({ name, rule }: { name: string; rule: AlertRule | null }) =>
      putRules(withRule(queries.getQueryData<RuleShown[]>(keys.rules) ?? all, name, rule)),
    onSuccess: ({ items }) => {
      queries.setQueryData(keys.rules, items);
      void queries.invalidateQueries({ queryKey: keys.alerts, exact: true });
    },
  });
}
