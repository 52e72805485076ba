// Sets the colour theme before anything is drawn, so that nothing flashes. Runs before every other script.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("mycelial-theme");
  } catch {
    // Storage may be forbidden; then the system's preference holds.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
