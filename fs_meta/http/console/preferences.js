// What somebody likes: kept by the browser, where it may be.

export function preference(name, fallback, allowed) {
  try {
    const value = localStorage.getItem(`ember.${name}`);
    return value !== null && allowed.includes(value) ? value : fallback;
  } catch {
    return fallback;
  }
}

export function prefer(name, value) {
  try {
    localStorage.setItem(`ember.${name}`, value);
  } catch {
    // It holds for as long as the page.
  }
}

export const THEMES = ["system", "light", "dark"];

export function applyTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
