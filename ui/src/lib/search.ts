// State that belongs into the address: a filter, a sort, a tab. What is the default is left out of it.

import { useCallback } from "react";
import { useSearchParams } from "wouter";

export function useSearchState(key: string, initial = ""): [string, (value: string) => void] {
  const [params, setParams] = useSearchParams();
  const set = useCallback(
    (value: string) =>
      setParams(
        (before) => {
          const after = new URLSearchParams(before);
          if (value === initial) after.delete(key);
          else after.set(key, value);
          return after;
        },
        { replace: true },
      ),
    [key, initial, setParams],
  );
  return [params.get(key) ?? initial, set];
}
