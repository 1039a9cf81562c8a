// The file browser, and how a file lies on chains: each chunk with its replicas.
//
// Paths are kept as the server gives them, with every byte that is no plain letter percent-encoded: that is exact, also
// for names that are no text. They are shown with what cannot be seen made visible.

import { h, keyed, setAttribute, setText } from "./dom.js";
import { bytes, count, counted, dateTime, visible } from "./format.js";
import { badge, mark, shapeOf, toneOf } from "./marks.js";
import { json } from "./session.js";

export const title = "Files";

const PAGE = 200;
const CHUNKS_PAGE = 120;
const KINDS = { file: "file", directory: "directory", symlink: "link" };

/** A percent-encoded name as text; bytes that are no UTF-8 stay encoded, as `\xNN`. */
export function decoded(encoded) {
  try {
    return visible(decodeURIComponent(encoded));
  } catch {
    return visible(encoded.replace(/(?:%[0-9A-Fa-f]{2})+/g, (run) => {
      try {
        return decodeURIComponent(run);
      } catch {
        return run.replace(/%([0-9A-Fa-f]{2})/g, (_, hex) => (parseInt(hex, 16) < 128 ? decodeURIComponent(`%${hex}`) : `\\x${hex.toLowerCase()}`));
      }
    }));
  }
}

const parent = (path) => path.slice(0, path.lastIndexOf("/")) || "/";
const hash = (path) => `#/files?path=${path}`;

/** The encoded path that an entry's `href` asks for. */
function pathOf(entry) {
  return entry.href.slice(entry.href.indexOf("path=") + 5);
}

export function create() {
  const crumbs = h("ol", {});
  const jump = h("input", { type: "text", id: "file-path", autocomplete: "off", spellcheck: "false", "aria-label": "Path" });
  const said = h("p", { class: "found", role: "status" });
  const list = h("ul", { class: "files", "aria-label": "Names" });
  const more = h("button", { type: "button", class: "more", hidden: true }, "Show more names");
  const empty = h("p", { class: "empty", hidden: true }, "There is nothing in this directory.");
  const details = h("aside", { class: "card details", "aria-label": "Details", tabindex: -1, hidden: true });
  let path = "/";
  let asked = 0;
  let next = null;
  let entries = [];

  const element = h(
    "div",
    {},
    h("h1", { tabindex: -1 }, title),
    h(
      "div",
      { class: "tools" },
      h("nav", { class: "crumbs", "aria-label": "Path" }, crumbs),
      h("form", { class: "filter", onsubmit: (event) => go(event) }, h("label", { for: "file-path" }, "Go to"), jump),
      said,
    ),
    h("div", { class: "browser" }, h("div", { class: "card flush" }, list, empty, h("div", { class: "more-frame" }, more)), details),
  );

  function go(event) {
    event.preventDefault();
    const wanted = jump.value.trim();
    if (wanted) location.hash = hash(encodeURI(wanted.startsWith("/") ? wanted : `/${wanted}`).replace(/[?#&+]/g, encodeURIComponent));
  }

  async function open(wanted) {
    const mine = (asked += 1);
    path = wanted;
    setText(said, "…");
    try {
      const found = await json(`/api/v1/files?path=${path}&limit=${PAGE}`);
      if (mine !== asked) return;
      setText(said, "");
      showCrumbs();
      if (found.entries === null) {
        // A file: its directory is listed beside it.
        await Promise.all([showDetails(found, mine), listDirectory(parent(path), mine)]);
        return;
      }
      details.hidden = true;
      take(found, []);
    } catch (error) {
      if (mine === asked) fail(error);
    }
  }

  function fail(error) {
    setText(said, error.status === 404 ? `There is no ${decoded(path)}` : error.message);
    if (error.status === 404) return;
    entries = [];
    draw();
  }

  async function listDirectory(directory, mine) {
    if (listed === directory) return draw();
    const found = await json(`/api/v1/files?path=${directory}&limit=${PAGE}`);
    if (mine === asked) take(found, [], directory);
  }

  let listed = null;

  function take(found, before, directory = path) {
    listed = directory;
    next = found.next;
    entries = [...before, ...found.entries];
    draw();
  }

  more.addEventListener("click", async () => {
    const mine = asked;
    const first = list.children.length;
    try {
      const found = await json(`/api/v1/files?path=${listed}&after=${next}&limit=${PAGE}`);
      if (mine !== asked) return;
      take(found, entries, listed);
      list.children[first]?.querySelector("a")?.focus();
    } catch (error) {
      setText(said, error.message);
    }
  });

  function draw() {
    keyed(list, entries, pathOf, makeEntry, (row, entry) => setAttribute(row.firstChild, "aria-current", pathOf(entry) === path ? "true" : null));
    empty.hidden = entries.length !== 0;
    list.hidden = entries.length === 0;
    more.hidden = next === null;
  }

  function showCrumbs() {
    const parts = path.split("/").filter(Boolean);
    const items = [["/", "/"], ...parts.map((part, index) => [`/${parts.slice(0, index + 1).join("/")}`, part])];
    crumbs.replaceChildren(
      ...items.map(([to, name], index) =>
        h("li", {}, h("a", { href: hash(to), "aria-current": index === items.length - 1 ? "page" : null }, index ? h("bdi", {}, decoded(name)) : "root")),
      ),
    );
    jump.value = "";
    setAttribute(jump, "placeholder", decoded(path));
  }

  async function showDetails(found, mine) {
    const { attributes } = found;
    const facts = [
      ["Kind", attributes.type],
      ["Length", `${bytes(attributes.length)} (${count(attributes.length)} bytes)`],
      ["Mode", `${attributes.mode}, ${attributes.uid}:${attributes.gid}`],
      ["Modified", dateTime(new Date(attributes.modified))],
      ["Inode", `${attributes.inode}, ${counted(attributes.links, "link")}`],
      attributes.target ? ["Points to", visible(attributes.target)] : null,
      attributes.layout
        ? ["Layout", `chunks of ${bytes(attributes.layout.chunk_size_bytes)}, ${counted(attributes.layout.stripe, "chain")}, durability ${attributes.layout.durability}`]
        : null,
      attributes.sparse ? ["Holes", "whole chunks of it may be holes"] : null,
    ].filter(Boolean);
    details.replaceChildren(
      h("div", { class: "details-head" }, h("h2", {}, h("bdi", {}, decoded(path.slice(path.lastIndexOf("/") + 1)))), h("a", { href: hash(parent(path)), class: "icon-button", "aria-label": "Close the details", title: "Close (Esc)" }, "×")),
      h("dl", {}, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    );
    details.hidden = false;
    if (attributes.type !== "file") return;
    const place = h("div", { class: "layout" });
    details.append(place);
    await showLayout(place, 0, mine, path);
  }

  async function showLayout(place, first, mine, of) {
    let found;
    try {
      found = await json(`/api/v1/layout?path=${of}&first=${first}&limit=${CHUNKS_PAGE}`);
    } catch (error) {
      place.append(h("p", { class: "empty" }, error.message));
      return;
    }
    if (mine !== asked) return;
    if (!found.chunks_total) {
      place.append(h("p", { class: "empty" }, "The file is empty: it has no chunks."));
      return;
    }
    const chains = new Map(found.chains.map((chain) => [chain.chain, chain]));
    const replicas = Math.max(1, ...found.chains.map((chain) => chain.targets.length));
    if (first === 0) {
      place.append(
        h("h3", {}, `${counted(found.chunks_total, "chunk")} on ${counted(chains.size, "chain")}`),
        h(
          "div",
          { class: "layout-frame", tabindex: 0, role: "region", "aria-label": "Chunks and replicas" },
          h(
            "table",
            { class: "layout-table" },
            h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Chunk"), h("th", { scope: "col", class: "number" }, "Bytes"), h("th", { scope: "col" }, "Chain"), Array.from({ length: replicas }, (_, k) => h("th", { scope: "col" }, replicaName(k, replicas))))),
            h("tbody", {}),
          ),
        ),
      );
    }
    const body = place.querySelector("tbody");
    for (const chunk of found.chunks) body.append(chunkRow(chunk, chains.get(chunk.chain), replicas));
    place.querySelector("button.more")?.remove();
    if (found.next !== null) {
      const left = found.chunks_total - found.next;
      place.append(h("button", { type: "button", class: "more", onclick: () => showLayout(place, found.next, mine, of) }, `Show ${Math.min(CHUNKS_PAGE, left)} more of ${count(left)} chunks`));
    }
  }

  // Arrow keys walk through the names.
  list.addEventListener("keydown", (event) => {
    const links = [...list.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (to === undefined || at === -1) return;
    event.preventDefault();
    links[Math.min(links.length - 1, Math.max(0, to))]?.focus();
  });

  return {
    element,
    update: () => {},
    filter: jump,
    arrive: (_, raw) => open(raw.match(/(?:^|&)path=([^&]*)/)?.[1] || "/"),
    keys: {
      u: () => {
        if (path !== "/") location.hash = hash(parent(path));
      },
      Escape: () => {
        if (!details.hidden) location.hash = hash(parent(path));
      },
    },
  };
}

/** Its state is said to readers; eyes have the sign, and the word where it is not serving. */
function replicaWords({ node, state }) {
  const rest = h("span", { class: state === "serving" ? "hidden" : null }, `, ${state}`);
  return h("span", {}, h("span", { class: "muted" }, `node ${node}`), rest);
}

function replicaName(index, replicas) {
  if (index === 0) return "Head";
  return index === replicas - 1 ? "Tail" : `Replica ${index + 1}`;
}

function makeEntry(entry) {
  const { attributes } = entry;
  const kind = KINDS[entry.type] ?? "special";
  return h(
    "li",
    {},
    h(
      "a",
      { href: hash(pathOf(entry)), class: "file", "data-kind": kind },
      h("span", { class: "file-kind", "aria-hidden": "true" }),
      h("bdi", { class: "file-name" }, decoded(pathOf(entry).slice(pathOf(entry).lastIndexOf("/") + 1)), kind === "directory" ? "/" : ""),
      kind === "link" && attributes?.target ? h("bdi", { class: "file-target" }, `→ ${visible(attributes.target)}`) : null,
      h("span", { class: "file-size" }, kind === "file" && attributes ? bytes(attributes.length) : kind === "directory" ? "" : entry.type),
      h("span", { class: "file-time" }, attributes ? dateTime(new Date(attributes.modified)) : ""),
    ),
  );
}

function chunkRow(chunk, chain, replicas) {
  const targets = chain?.targets ?? [];
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, count(chunk.chunk)),
    h("td", { class: "number" }, bytes(chunk.length)),
    h("td", {}, h("a", { href: `#/chains?filter=%23${chunk.chain}` }, String(chunk.chain))),
    Array.from({ length: replicas }, (_, k) => {
      const target = targets[k];
      if (!target) return h("td", {}, "–");
      return h("td", { "data-tone": toneOf(target.state), title: `${target.state}, ${target.address}` }, h("span", { class: "replica" }, mark(shapeOf(target.state)), String(target.target), replicaWords(target)));
    }),
  );
}
