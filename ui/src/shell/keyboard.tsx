// Keys that work everywhere: Ctrl/⌘-K, `/`, `?`, and `g` with a page's letter. Silent while somebody types.

import { lazy, Suspense, useEffect, useState } from "react";
import { useLocation } from "wouter";
import { useNavigation } from "./routes";

const Palette = lazy(() => import("./palette"));
const Shortcuts = lazy(() => import("./shortcuts"));

/** How long after `g` the letter may come. */
const SEQUENCE_MS = 1_500;

/** The key that the shortcuts go with, as this machine's keyboard calls it. */
export const MODIFIER = /Mac|iPhone|iPad/.test(navigator.userAgent) ? "⌘" : "Ctrl";

function isTyping(target: EventTarget | null) {
  return target instanceof HTMLElement && target.closest("input, textarea, select, [contenteditable]") !== null;
}

/** To the field that searches this page, if it has one. */
function focusSearch() {
  const field = document.querySelector<HTMLInputElement>("main [data-search]");
  field?.focus();
  field?.select();
  return field !== null;
}

export type Overlay = "palette" | "shortcuts" | null;

export function useKeyboard() {
  const [overlay, setOverlay] = useState<Overlay>(null);
  const [, go] = useLocation();
  const navigation = useNavigation();
  useEffect(() => {
    let sequenceAt = 0;
    const onKey = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "k") {
        event.preventDefault();
        setOverlay("palette");
        return;
      }
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || isTyping(event.target)) return;
      if (document.querySelector("[role=dialog]")) return;
      const wasSequence = event.timeStamp - sequenceAt < SEQUENCE_MS;
      sequenceAt = event.key === "g" && !wasSequence ? event.timeStamp : 0;
      const place = wasSequence ? navigation.find(({ key }) => key === event.key) : undefined;
      if (place) {
        event.preventDefault();
        go(place.href);
      } else if (event.key === "?") {
        setOverlay("shortcuts");
      } else if (event.key === "/") {
        event.preventDefault();
        if (!focusSearch()) setOverlay("palette");
      }
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, [go, navigation]);
  return { overlay, setOverlay };
}

export function Overlays({ overlay, onClose }: { overlay: Overlay; onClose: () => void }) {
  return (
    <Suspense fallback={null}>
      {overlay === "palette" && <Palette onClose={onClose} />}
      {overlay === "shortcuts" && <Shortcuts onClose={onClose} />}
    </Suspense>
  );
}
