// Building and changing the page. Text goes in as text, never as HTML: a file's name may hold anything.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An element: attributes by name, listeners as `onclick` and the like; children are nodes or text. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same, of a drawing. */
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** `null` takes the attribute away. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value === true ? "" : String(value));
}

const known = new WeakMap();

/**
 * Let `parent` have one child for each item, in this order. A child is made once for each key and changed from then on,
 * so what has the focus, or is selected, stays.
 */
export function keyed(parent, items, keyOf, make, change) {
  const before = known.get(parent) ?? new Map();
  const now = new Map(items.map((item) => [keyOf(item), item]));
  for (const [key, node] of before) {
    if (now.has(key)) continue;
    node.remove();
    before.delete(key);
  }
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  let place = parent.firstChild;
  for (const [key, item] of now) {
    const node = before.get(key) ?? make(item);
    now.set(key, node);
    change?.(node, item);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
  known.set(parent, now);
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

/** Run `work` before the next frame is painted, once however often it is asked for. */
export function eachFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    // A page that nobody sees gets no frames, and must not fall behind for ever.
    const run = () => {
      if (!asked) return;
      asked = false;
      work();
    };
    requestAnimationFrame(run);
    if (document.hidden) setTimeout(run, 1000);
  };
}
