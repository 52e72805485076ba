// What this browser remembers for one person. Damaged or forbidden storage is as if there was nothing.

import { useCallback, useState } from "react";

export function useStored<T>(key: string, initial: T, isValid: (value: unknown) => value is T) {
  const [value, setValue] = useState<T>(() => {
    try {
      const stored: unknown = JSON.parse(localStorage.getItem(key) ?? "null");
      return isValid(stored) ? stored : initial;
    } catch {
      return initial;
    }
  });
  const store = useCallback(
    (next: T) => {
      setValue(next);
      try {
        localStorage.setItem(key, JSON.stringify(next));
      } catch {
        // Then it holds until the page is closed.
      }
    },
    [key],
  );
  return [value, store] as const;
}
