// The colour theme: the system's, or one that was chosen in this browser. public/theme.js applies it before the first paint.

import { create } from "zustand";

export type Theme = "system" | "light" | "dark";
const STORED = "mycelial-theme";

function stored(): Theme {
  const theme = document.documentElement.dataset.theme;
  return theme === "light" || theme === "dark" ? theme : "system";
}

export const useTheme = create<{ theme: Theme }>(() => ({ theme: stored() }));

export function chooseTheme(theme: Theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(STORED, theme);
  } catch {
    // Then it holds until the page is closed.
  }
  useTheme.setState({ theme });
}
