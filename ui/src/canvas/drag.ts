/** What is dragged from the palette to the canvas: `source/sqlite`. */
export const DRAG_TYPE = "application/x-mycelial-component";
