// The console: one page, some views, fed by the live feed.

import * as chains from "./chains.js";
import * as clients from "./clients.js";
import { eachFrame, h, setAttribute, setText } from "./dom.js";
import { Feed } from "./feed.js";
import * as files from "./files.js";
import { clock, count } from "./format.js";
import { mark, shapeOf, toneOf } from "./marks.js";
import * as nodes from "./nodes.js";
import * as operations from "./operations.js";
import * as overview from "./overview.js";
import { applyTheme, prefer, preference, THEMES } from "./preferences.js";
import { hasToken, setToken } from "./session.js";
import { Store } from "./store.js";

const VIEWS = { overview, nodes, chains, clients, operations, files };
const NAMES = Object.keys(VIEWS);
const KEYS = [
  ["1 – 6", "a view"],
  ["/", "the filter, or the path"],
  ["r", "charts of 5 minutes, 15 minutes, an hour"],
  ["← →", "on a chart: read single moments"],
  ["↑ ↓", "among files: the one before, the next one"],
  ["u", "among files: the directory above"],
  ["t", "theme: system, light, dark"],
  ["Esc", "close, leave the filter"],
  ["?", "this list"],
];

const at = (id) => document.getElementById(id);
const store = new Store();
const made = new Map();
let current = null;

// -- views --------------------------------------------------------------------------------------------------------------

function route() {
  const [name, raw = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { name: NAMES.includes(name) ? name : "overview", raw };
}

function show(focus) {
  const { name, raw } = route();
  if (!made.has(name)) made.set(name, VIEWS[name].create());
  const view = made.get(name);
  if (current !== view) {
    current?.leave?.();
    current = view;
    at("view").replaceChildren(view.element);
    view.show?.();
    for (const link of document.querySelectorAll("#views a")) setAttribute(link, "aria-current", link.dataset.view === name ? "page" : null);
    // Not `scrollIntoView`, from which the next Tab would go on.
    const [bar, link] = [document.querySelector(".views"), document.querySelector("#views [aria-current]")];
    bar.scrollLeft = link.offsetLeft - (bar.clientWidth - link.offsetWidth) / 2;
    scrollTo(0, 0);
    if (focus) view.element.querySelector("h1")?.focus({ preventScroll: true });
  }
  setTitle();
  view.arrive?.(new URLSearchParams(raw), raw);
  view.update(store);
}

function setTitle() {
  const name = route().name;
  const cluster = store.cluster;
  const ill = cluster && cluster.health !== "healthy" ? `${cluster.health}: ` : "";
  document.title = `${ill}${cluster?.cluster ? `${cluster.cluster} – ` : ""}${VIEWS[name].title} – EmberFS`;
}

// -- what every view shows ----------------------------------------------------------------------------------------------

let saidHealth = "";

function header() {
  const { cluster, connection } = store;
  const pill = at("health");
  const known = cluster && connection.state !== "lost" && connection.state !== "token";
  const state = known ? overview.stateOf(cluster) : "unknown";
  if (pill.dataset.health !== state && (known || connection.state !== "connecting")) {
    pill.dataset.health = state;
    setAttribute(pill, "data-tone", toneOf(state));
    pill.firstElementChild.replaceChildren(mark(shapeOf(state)));
    setText(pill.lastElementChild, state);
  }
  if (cluster) {
    setText(at("cluster-name"), cluster.cluster);
    setText(at("count-nodes"), cluster.nodes_up === cluster.nodes ? count(cluster.nodes) : `${count(cluster.nodes_up)}/${count(cluster.nodes)}`);
    const well = cluster.chain_states.serving ?? 0;
    setText(at("count-chains"), well === cluster.chains ? count(cluster.chains) : `${count(well)}/${count(cluster.chains)}`);
    setText(at("count-clients"), count(cluster.clients));
    setAttribute(at("count-nodes"), "title", `${count(cluster.nodes_up)} of ${count(cluster.nodes)} are up`);
    setAttribute(at("count-chains"), "title", `${count(well)} of ${count(cluster.chains)} serve with all replicas`);
    const health = `${overview.headline(cluster)}${cluster.missing.length ? `: ${cluster.missing.slice(0, 3).join(", ")}` : ""}`;
    if (health !== saidHealth) {
      if (saidHealth) announce(health);
      saidHealth = health;
    }
  }
  showConnection(connection);
  setTitle();
}

function showConnection(connection) {
  const node = at("connection");
  const words = { connecting: "Connecting", live: "Live", lost: "Disconnected", token: "Signed out" };
  if (node.dataset.state !== connection.state) {
    if (connection.state === "lost") announce("Disconnected from the metadata server");
    if (connection.state === "live" && node.dataset.state === "lost") announce("Connected again");
    node.dataset.state = connection.state;
  }
  setText(node.lastElementChild, words[connection.state]);
  const lost = connection.state === "lost";
  document.body.classList.toggle("stale", lost);
  at("view").hidden = connection.state === "token"; // Who is not known any more sees nothing of what was shown.
  const banner = at("lost");
  if (!lost) {
    banner.hidden = true;
    return;
  }
  if (!banner.firstChild) {
    banner.append(
      h("b", {}, "Disconnected: "),
      h("span", {}),
      h("button", { type: "button", onclick: () => feed.now() }, "Try now"),
    );
  }
  const since = store.heardAt ? ` What is shown is from ${clock(store.heardAt)}.` : "";
  setText(banner.children[1], `${connection.detail}.${since} Trying again by itself.`);
  banner.hidden = false;
}

function announce(words) {
  setText(at("announced"), words);
}

const draw = eachFrame(() => {
  header();
  current?.update(store);
});

// -- the feed, and the token that it may want ---------------------------------------------------------------------------

const feed = new Feed(
  (name, value) => {
    store.take(name, value);
    draw();
  },
  (connection) => {
    store.connection = connection;
    if (connection.state === "token") askForToken(connection.detail);
    draw();
  },
);

function askForToken(detail) {
  const refused = hasToken();
  setToken("", false);
  const token = h("input", { type: "password", id: "token", name: "token", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "token-note" });
  const keep = h("input", { type: "checkbox", id: "token-keep" });
  const dialog = h(
    "dialog",
    { class: "dialog", "aria-labelledby": "token-title" },
    h(
      "form",
      {
        onsubmit: (event) => {
          event.preventDefault();
          setToken(token.value.trim(), keep.checked);
          dialog.remove();
          feed.signedIn();
        },
      },
      h("h2", { id: "token-title" }, "This cluster asks who you are"),
      refused ? h("p", { class: "refused", role: "alert" }, detail) : null,
      h("label", { for: "token" }, "Token"),
      token,
      h("p", { id: "token-note", class: "note" }, "It begins with ember. and is in the file that your administrator gave you. It is sent to this server only, and forgotten when this page is closed."),
      h("label", { class: "check" }, keep, h("span", {}, "Keep it until this tab is closed")),
      h("button", { type: "submit", class: "primary" }, "Show the cluster"),
    ),
  );
  // There is nothing to see without it. A browser may close a dialog all the same.
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.addEventListener("close", () => dialog.isConnected && dialog.showModal());
  document.querySelector("dialog.dialog")?.remove();
  document.body.append(dialog);
  dialog.showModal();
  token.focus();
}

// -- keys and buttons ---------------------------------------------------------------------------------------------------

function showHelp() {
  const dialog = h(
    "dialog",
    { class: "dialog", "aria-labelledby": "help-title" },
    h("h2", { id: "help-title" }, "Keys"),
    h("dl", { class: "keys" }, KEYS.map(([key, words]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, words)])),
    h("p", { class: "note" }, store.release ? `EmberFS ${store.release}` : ""),
    h("form", { method: "dialog" }, h("button", { class: "primary" }, "Close")),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

let theme = preference("theme", "system", THEMES);

function setTheme(wanted) {
  theme = wanted;
  applyTheme(theme);
  const words = { system: "as the system", light: "light", dark: "dark" }[theme];
  setAttribute(at("theme"), "aria-label", `Theme: ${words}`);
  setText(at("theme"), { system: "◐", light: "☀", dark: "☾" }[theme]);
  dispatchEvent(new Event("ember-theme"));
}

function nextTheme() {
  setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
  prefer("theme", theme);
  announce(at("theme").getAttribute("aria-label"));
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest?.("input:not([type=radio]):not([type=checkbox]), textarea, select");
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const view = NAMES[Number(event.key) - 1];
  if (view) location.hash = `#/${view}`;
  else if (event.key === "/" && current?.filter) current.filter.focus();
  else if (event.key === "t") nextTheme();
  else if (event.key === "?") showHelp();
  else if (current?.keys?.[event.key]) current.keys[event.key]();
  else return;
  if (event.key !== "Escape") event.preventDefault();
});

at("theme").addEventListener("click", nextTheme);
at("help").addEventListener("click", showHelp);
addEventListener("hashchange", () => show(true));
// Ages of what is shown grow also while nothing comes.
setInterval(() => document.hidden || draw(), 5000);

setTheme(theme);
show(false);
feed.run();
