// The nodes: state, release, space, what they do, and since when nothing was heard.

import { h, setText } from "./dom.js";
import { bytes, bytesPerSecond, duration, percent } from "./format.js";
import { badge, changeBadge, meter, setMeter } from "./marks.js";
import { Table } from "./table.js";

export const title = "Nodes";

const ORDER = ["failed", "silent", "left", "drained", "up"];

function stateOf(node) {
  if (node.state !== "up") return node.state;
  return node.answers ? (node.drained ? "drained" : "up") : "silent";
}

function wordOf(node) {
  return { silent: "up, silent", left: "stopped", drained: "up, drained" }[stateOf(node)] ?? node.state;
}

const used = (node) => node.capacity_bytes - node.free_bytes;

export function create() {
  const filter = h("input", { type: "search", id: "node-filter", placeholder: "Node, address or state", autocomplete: "off", spellcheck: "false" });
  const found = h("p", { class: "found", role: "status" });
  let last = null;
  const table = new Table({
    label: "Nodes",
    keyOf: (node) => node.node,
    sort: { key: "state", down: false },
    empty: "No storage daemon has come yet. The cluster begins when enough have joined: `storage_nodes` of the metadata server.",
    columns: [
      { key: "node", label: "Node", number: true, value: (node) => node.node },
      {
        key: "state",
        label: "State",
        value: (node) => ORDER.indexOf(stateOf(node)) * 1e9 + node.node,
        cell: () => badge("unknown"),
        change: (cell, node) => changeBadge(cell.firstChild, stateOf(node), wordOf(node)),
      },
      {
        key: "address",
        label: "Address",
        value: (node) => node.address,
        cell: () => h("code", {}),
        change: (cell, node) => setText(cell.firstChild, node.address),
      },
      {
        key: "space",
        label: "Space used",
        wide: true,
        value: (node) => percent(used(node), node.capacity_bytes),
        cell: (node) => h("span", { class: "space" }, meter(`Space used on node ${node.node}`), h("span", { class: "space-words" })),
        change: (cell, node) => {
          const share = percent(used(node), node.capacity_bytes);
          const words = `${bytes(used(node))} of ${bytes(node.capacity_bytes)}`;
          setMeter(cell.firstChild.firstChild, share, words, share >= 90 ? "bad" : share >= 80 ? "warn" : null);
          setText(cell.firstChild.lastChild, words);
        },
      },
      { key: "targets", label: "Targets", number: true, value: (node) => node.targets },
      rate("read_bytes", "Read"),
      rate("write_bytes", "Written"),
      {
        key: "silent",
        label: "Heard",
        number: true,
        value: (node) => node.silent_ms,
        change: (cell, node) => setText(cell, heard(node)),
      },
      { key: "release", label: "Release", value: (node) => node.release || "–" },
      {
        key: "note",
        label: "Note",
        wide: true,
        change: (cell, node) => setText(cell, node.note),
      },
    ],
  });
  filter.addEventListener("input", () => last && update(last));

  function update(store) {
    last = store;
    const words = filter.value.trim().toLowerCase();
    const shown = words ? store.nodes.filter((node) => matches(node, words)) : store.nodes;
    table.update(shown);
    const up = store.nodes.filter((node) => node.state === "up").length;
    const all = `${up} of ${store.nodes.length} up`;
    setText(found, words ? `${shown.length} found; ${all}` : store.nodes.length ? all : "");
  }

  const element = h(
    "div",
    {},
    h("h1", { tabindex: -1 }, title),
    h("div", { class: "tools" }, h("label", { class: "filter", for: "node-filter" }, "Filter", filter), found),
    h("div", { class: "card flush" }, table.element),
  );
  return { element, update, filter };
}

function rate(key, label) {
  return { key, label, number: true, value: (node) => node[key], change: (cell, node) => setText(cell, bytesPerSecond(node[key])) };
}

function heard(node) {
  if (node.silent_ms === null || node.silent_ms === undefined) return "–";
  return node.silent_ms < 2500 ? "now" : `${duration(node.silent_ms / 1000)} ago`;
}

function matches(node, words) {
  return words
    .split(/\s+/)
    .every((word) => String(node.node) === word || node.address.toLowerCase().includes(word) || wordOf(node).includes(word) || node.note.toLowerCase().includes(word));
}
