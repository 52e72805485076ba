// When a daemon was last heard.

import { useLive } from "@/api/live";
import { Time } from "./time";

/** `agoMs` counts from the picture it came with; `null`: never since the plane started. */
export function Seen({ agoMs }: { agoMs: number | null }) {
  const at = useLive((state) => state.pictureAt);
  if (agoMs === null) return <span className="text-muted">never</span>;
  return <Time unixMs={(at ?? Date.now()) - agoMs} />;
}
