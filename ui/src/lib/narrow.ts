// Whether the page is as narrow as a telephone: where its classes say `max-md`.

import { useSyncExternalStore } from "react";

const NARROW = "(max-width: 767px)";

function listen(listener: () => void) {
  const query = matchMedia(NARROW);
  query.addEventListener("change", listener);
  return () => query.removeEventListener("change", listener);
}

export const useNarrow = () => useSyncExternalStore(listen, () => matchMedia(NARROW).matches);
