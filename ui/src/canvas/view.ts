// Which part of a graph is seen at first, and how large. Pure.

import { getViewportForBounds, type Rect } from "@xyflow/react";

export const PADDING = 0.15;
export const ZOOM_MIN = 0.1;
/** On a telephone, where the canvas is narrower than this, nodes stay readable, and a finger moves to the rest. */
const NARROW_PX = 480;
const READABLE_ZOOM_MIN = 0.7;
const MARGIN_PX = 16;

/** `0`: its size is not known yet. */
export const isNarrow = (width: number) => width > 0 && width < NARROW_PX;

/** All of it, at its own size at most; when there is no room for that, from where it begins. */
export function viewOf(bounds: Rect, width: number, height: number) {
  const least = isNarrow(width) ? READABLE_ZOOM_MIN : ZOOM_MIN;
  const { x, y, zoom } = getViewportForBounds(bounds, width, height, least, 1, PADDING);
  const begin = (centred: number, from: number, size: number, room: number) =>
    size * zoom > room ? MARGIN_PX - from * zoom : centred;
  return {
    x: begin(x, bounds.x, bounds.width, width),
    y: begin(y, bounds.y, bounds.height, height),
    zoom,
  };
}
