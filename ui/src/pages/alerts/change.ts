// Storing rules: the plane takes all of one's own at once, if they still are what they were.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { putRules } from "@/api/actions";
import { ask, Failed } from "@/api/client";
import { keys } from "@/api/keys";
import type { AlertRule, ListPage, RuleShown } from "@/api/types";
import { withRule } from "./words";

/** Stores the rules with the one called `name` changed; `null`: without it. */
export function useChangeRule(all: readonly RuleShown[]) {
  const queries = useQueryClient();
  return useMutation({
    // Others may have changed other rules since this was drawn, and those stay; the same rule is theirs.
    mutationFn: async ({ name, rule }: { name: string; rule: AlertRule | null }) => {
      const shown = queries.getQueryData<RuleShown[]>(keys.rules) ?? all;
      const { data, etag } = await ask<ListPage<RuleShown>>("GET", "/alerts/rules");
      const [before, now] = [shown, data.items].map((rules) =>
        JSON.stringify(rules.find((each) => each.name === name) ?? null),
      );
      if (before !== now) {
        queries.setQueryData(keys.rules, data.items);
        throw new Failed(412, `somebody has changed the rule ${name} meanwhile`, "look at it again, then change it");
      }
      return putRules(withRule(data.items, name, rule), etag ?? "*");
    },
    onSuccess: ({ items }) => {
      queries.setQueryData(keys.rules, items);
      void queries.invalidateQueries({ queryKey: keys.alerts, exact: true });
    },
  });
}
