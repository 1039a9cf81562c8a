// Before anything is painted: the theme that was chosen, so that a dark room sees no white page.
try {
  const theme = localStorage.getItem("ember.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // No storage: as the system.
}
