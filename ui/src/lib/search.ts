// State that belongs into the address: a filter, a sort, a tab. What is the default is left out of it.

import { useCallback } from "react";
import { useSearchParams } from "wouter";

export function useSearchState(key: string, initial = ""): [string, (value: string) => void] {
  const [params, setParams] = useSearchParams();
  const set = useCallback(
    (value: string) =>
      setParams(
        () => {
          // What is in the address now: two of these may be set one after the other, before the page is drawn again.
          const after = new URLSearchParams(window.location.search);
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
