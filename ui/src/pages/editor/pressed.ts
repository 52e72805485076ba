// What keys mean in the editor, by where they are pressed. Pure but for the page that it looks at.

export type Meaning = "deploy" | "undo" | "redo" | "all";

/** "own": a field with a text that is not the workflow's, or not yet; browsers undo there. */
export type Where = "own" | "workflow" | "elsewhere";

export function whereIs(target: EventTarget | null): Where {
  if (!(target instanceof HTMLElement)) return "elsewhere";
  const field = target.closest("input, textarea, select");
  if (!field) return "elsewhere";
  // What searches has the focus after something was removed: with nothing written there, that is what is undone.
  const isSearch = field instanceof HTMLInputElement && field.type === "search" && field.value !== "";
  return isSearch || field.matches("[data-own]") ? "own" : "workflow";
}

/** Marks a field as one whose text is not the workflow's while that is so. */
export const own = (isOwn: boolean) => ({ "data-own": isOwn || undefined });

type Pressed = Pick<KeyboardEvent, "key" | "ctrlKey" | "metaKey" | "altKey" | "shiftKey">;

export function meaningOf({ key, ctrlKey, metaKey, altKey, shiftKey }: Pressed, where: Where): Meaning | null {
  if (!(ctrlKey || metaKey) || altKey) return null;
  switch (key.toLowerCase()) {
    case "s":
      return "deploy";
    case "z":
      return where === "own" ? null : shiftKey ? "redo" : "undo";
    case "y":
      return where === "own" ? null : "redo";
    case "a":
      return where === "elsewhere" ? "all" : null;
    default:
      return null;
  }
}
