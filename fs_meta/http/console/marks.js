// Signs for states: each has a shape of its own, so that colour is never the only sign.

import { h, s, setAttribute, setText } from "./dom.js";

const SHAPES = {
  // 16 x 16, drawn with the current colour.
  ok: () => [s("circle", { cx: 8, cy: 8, r: 7 }), s("path", { d: "M4.800 8.300 7 10.500l4.300-4.700", class: "cut" })],
  warn: () => [s("path", { d: "M8 1 15.500 14.500H.5Z" }), s("path", { d: "M8 5.800v4M8 11.700v.8", class: "cut" })],
  bad: () => [s("path", { d: "M5 1h6l4 4v6l-4 4H5l-4-4V5Z" }), s("path", { d: "m5.500 5.500 5 5m0-5-5 5", class: "cut" })],
  busy: () => [s("circle", { cx: 8, cy: 8, r: 6.2, class: "ring" }), s("path", { d: "M8 4a4 4 0 0 1 0 8Z" })],
  wait: () => [s("circle", { cx: 8, cy: 8, r: 6.2, class: "ring" }), s("path", { d: "M8 4.500V8l2.500 1.600", class: "line" })],
  rest: () => [s("circle", { cx: 8, cy: 8, r: 7 }), s("path", { d: "M6.200 5.300v5.400M9.800 5.300v5.400", class: "cut" })],
  none: () => [s("circle", { cx: 8, cy: 8, r: 6.2, class: "ring dashed" })],
  gone: () => [s("path", { d: "m4 4 8 8m0-8-8 8", class: "line" })],
};

export function mark(shape) {
  const node = s("svg", { viewBox: "0 0 16 16", class: "mark-svg", "aria-hidden": "true" });
  node.append(...(SHAPES[shape] ?? SHAPES.none)());
  return node;
}

// Of a health or state: the sign, and the tone that the style sheet colours.
const OF_STATE = {
  healthy: ["ok", "ok"],
  serving: ["ok", "ok"],
  up: ["ok", "ok"],
  degraded: ["warn", "warn"],
  mending: ["busy", "warn"],
  syncing: ["busy", "info"],
  waiting: ["wait", "info"],
  lastsrv: ["warn", "warn"],
  silent: ["warn", "warn"],
  starting: ["wait", "info"],
  resting: ["rest", "info"],
  drained: ["rest", "info"],
  offline: ["bad", "bad"],
  failed: ["bad", "bad"],
  "not serving": ["bad", "bad"],
  left: ["gone", "muted"],
  unknown: ["none", "muted"],
};

export function toneOf(state) {
  return (OF_STATE[state] ?? OF_STATE.unknown)[1];
}

export function shapeOf(state) {
  return (OF_STATE[state] ?? OF_STATE.unknown)[0];
}

/** A sign with its word. */
export function badge(state, word = state) {
  const node = h("span", { class: "badge" }, h("span", { class: "badge-mark" }), h("span", { class: "badge-word" }));
  changeBadge(node, state, word);
  return node;
}

export function changeBadge(node, state, word = state) {
  const [shape, tone] = OF_STATE[state] ?? OF_STATE.unknown;
  setAttribute(node, "data-tone", tone);
  const place = node.firstChild;
  if (place.dataset.shape !== shape) {
    place.dataset.shape = shape;
    place.replaceChildren(mark(shape));
  }
  setText(node.lastChild, word);
}

/** How much of something is used or done. `setMeter` gives it its value. */
export function meter(label) {
  return h("span", { class: "meter", role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 }, h("span", {}));
}

export function setMeter(node, percent, words, tone) {
  node.firstChild.style.setProperty("inline-size", `${percent.toFixed(1)}%`);
  setAttribute(node, "aria-valuenow", Math.round(percent));
  setAttribute(node, "aria-valuetext", words);
  setAttribute(node, "data-tone", tone ?? null);
}
