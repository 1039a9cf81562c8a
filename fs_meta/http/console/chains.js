// Chains, drawn as rows of targets from head to tail, with their states and how far they are filled up. A map of all of
// them comes first: thousands fit into it. What is not well comes before what is.

import { Chart } from "./chart.js";
import { h, keyed, setAttribute, setText } from "./dom.js";
import { bytes, bytesPerSecond, count, counted, duration, percent } from "./format.js";
import { badge, changeBadge, mark, meter, setMeter, shapeOf, toneOf } from "./marks.js";
import { Table } from "./table.js";

export const title = "Chains";

const PAGE = 60;
const MAP_FROM = 13; // Fewer chains are seen at once in the list.
const ORDER = { offline: 0, mending: 1, degraded: 2, serving: 3 };
const STATES = [
  ["all", "All"],
  ["ill", "Not well"],
  ["serving", "Serving"],
  ["degraded", "Degraded"],
  ["mending", "Mending"],
  ["offline", "Offline"],
  ["syncing", "Filling up"],
];

const syncs = (chain) => chain.targets.some((target) => target.state === "syncing" || target.fills);

function isOf(chain, state) {
  if (state === "all") return true;
  if (state === "ill") return chain.state !== "serving" || syncs(chain);
  if (state === "syncing") return syncs(chain);
  return chain.state === state;
}

function matches(chain, words) {
  return words.every((word) => {
    const [kind, number] = word.includes(":") ? word.split(":") : ["", word.replace(/^#/, "")];
    if (kind === "node") return chain.targets.some((target) => String(target.node) === number);
    if (kind === "target") return chain.targets.some((target) => String(target.target) === number);
    if (kind === "chain" || word.startsWith("#")) return String(chain.chain) === number;
    return (
      String(chain.chain) === word ||
      chain.targets.some((target) => String(target.target) === word) ||
      chain.targets.some((target) => target.state.includes(word))
    );
  });
}

export function create() {
  const filter = h("input", {
    type: "search",
    id: "chain-filter",
    placeholder: "12, node:3, target:301",
    autocomplete: "off",
    spellcheck: "false",
  });
  const found = h("p", { class: "found", role: "status" });
  const choices = h("fieldset", { class: "segments wrap" }, h("legend", { class: "hidden" }, "State"));
  const counts = new Map();
  let state = "all";
  let limit = PAGE;
  let last = null;
  let drawn = -1;
  for (const [name, label] of STATES) {
    const input = h("input", { type: "radio", name: "chain-state", value: name, checked: name === state });
    input.addEventListener("change", () => choose(name));
    const number = h("span", { class: "count" });
    const item = h("label", {}, input, h("span", {}, label, number));
    counts.set(name, { number, item });
    choices.append(item);
  }
  const list = h("ol", { class: "chains" });
  const empty = h("p", { class: "empty", hidden: true });
  const more = h("button", { type: "button", class: "more", hidden: true });
  const map = new ChainMap((chain) => {
    filter.value = `#${chain}`;
    choose("all");
    list.querySelector("li")?.focus();
  });
  const moves = movesTable();
  const filling = new Chart({
    title: "Filling up replicas, the last hour",
    lines: [{ name: "resync_bytes", label: "sent between daemons" }],
    format: bytesPerSecond,
    base: 1024,
    floor: 1024,
  });
  filter.addEventListener("input", () => {
    limit = PAGE;
    redraw();
  });
  more.addEventListener("click", () => {
    const first = list.children.length;
    limit += PAGE;
    redraw();
    list.children[first]?.focus();
  });

  function choose(name) {
    state = name;
    limit = PAGE;
    for (const input of choices.querySelectorAll("input")) input.checked = input.value === name;
    redraw();
  }

  function redraw() {
    drawn = -1;
    if (last) update(last);
  }

  function update(store) {
    last = store;
    moves.update(store.moves);
    filling.element.hidden = !(store.samples.series.resync_bytes ?? []).some((value) => value > 0);
    filling.update(store.samples, 3_600_000);
    if (drawn === store.chainsChanged) return;
    drawn = store.chainsChanged;
    const chains = [...store.chains.values()].sort(
      (one, other) => (ORDER[one.state] ?? 0) - (ORDER[other.state] ?? 0) || syncs(other) - syncs(one) || one.chain - other.chain,
    );
    for (const [name, { number, item }] of counts) {
      const some = chains.filter((chain) => isOf(chain, name)).length;
      setText(number, count(some));
      item.hidden = some === 0 && !["all", "ill", state].includes(name);
    }
    const words = filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = chains.filter((chain) => isOf(chain, state) && matches(chain, words));
    const shown = chosen.slice(0, limit);
    keyed(list, shown, (chain) => chain.chain, makeRow, changeRow);
    list.hidden = shown.length === 0;
    empty.hidden = shown.length !== 0;
    setText(
      empty,
      chains.length === 0
        ? "There is no chain yet: the first ones are made when enough storage daemons have joined."
        : state === "ill" && !words.length
          ? "All chains are well."
          : "No chain is like that.",
    );
    more.hidden = chosen.length <= shown.length;
    setText(more, `Show ${Math.min(PAGE, chosen.length - shown.length)} more of ${count(chosen.length - shown.length)}`);
    setText(found, words.length || state !== "all" ? counted(chosen.length, "chain") : "");
    map.update([...chains].sort((one, other) => one.chain - other.chain), new Set(chosen.map((chain) => chain.chain)));
  }

  const legend = h(
    "ul",
    { class: "marks", "aria-label": "Signs" },
    [
      ["serving", "serving"],
      ["syncing", "filled up"],
      ["waiting", "waits for its turn"],
      ["lastsrv", "served last"],
      ["offline", "offline"],
    ].map(([name, words]) => h("li", {}, badge(name, words))),
  );
  const element = h(
    "div",
    {},
    h("h1", { tabindex: -1 }, title),
    h("div", { class: "tools" }, choices, h("label", { class: "filter", for: "chain-filter" }, "Filter", filter), found),
    map.element,
    h("div", { class: "card" }, h("div", { class: "list-head" }, h("span", {}, "Head first, tail last"), legend), list, empty, more),
    moves.element,
    h("div", { class: "charts below" }, filling.element),
  );
  return {
    element,
    update,
    filter,
    arrive: (query) => {
      if (!query.has("filter") && !query.has("state")) return;
      filter.value = query.get("filter") ?? "";
      choose(query.get("state") ?? "all");
    },
  };
}

// -- one chain ----------------------------------------------------------------------------------------------------------

function makeRow() {
  return h(
    "li",
    { class: "chain", tabindex: -1 },
    h("span", { class: "chain-name" }),
    badge("unknown"),
    h("ol", { class: "targets" }),
    h("ul", { class: "what" }),
  );
}

function changeRow(row, chain) {
  const [name, state, targets, what] = row.children;
  if (row.dataset.version !== `${chain.version}`) {
    row.dataset.version = chain.version;
    name.replaceChildren(h("span", { class: "hidden" }, "Chain "), h("b", {}, String(chain.chain)), h("span", { class: "version" }, ` v${chain.version}`));
  }
  setAttribute(row, "data-tone", toneOf(chain.state));
  changeBadge(state, chain.state);
  keyed(targets, chain.targets, (target) => target.target, makeTarget, changeTarget);
  const lines = (chain.what ?? []).map((line, index) => ({ line, index }));
  keyed(what, lines, ({ index }) => index, () => h("li", {}), (item, { line }) => setText(item, line));
  what.hidden = lines.length === 0;
}

function makeTarget() {
  return h(
    "li",
    { class: "target" },
    h("span", { class: "target-mark" }),
    h("span", { class: "target-name" }),
    h("span", { class: "target-node" }),
    h("span", { class: "target-state" }),
    h("span", { class: "target-fill", hidden: true }),
  );
}

function changeTarget(node, target) {
  const [sign, name, where, state, fill] = node.children;
  const shape = shapeOf(target.state);
  if (sign.dataset.shape !== shape) {
    sign.dataset.shape = shape;
    sign.replaceChildren(mark(shape));
  }
  setAttribute(node, "data-tone", toneOf(target.state));
  setText(name, String(target.target));
  setText(where, `node ${target.node}`);
  const known = target.used_bytes !== undefined;
  const serves = target.state === "serving";
  // The sign of those that serve says so to eyes; what they hold is of more use there.
  setText(state, serves ? (known ? bytes(target.used_bytes) : "serving") : target.state);
  setAttribute(state, "class", serves && !known ? "target-state hidden" : "target-state");
  const held = known ? `, ${counted(target.chunks, "chunk")}, ${bytes(target.used_bytes)}` : "";
  setAttribute(node, "title", target.reason || `target ${target.target} on node ${target.node}: ${target.state}${held}`);
  fill.hidden = !target.fills;
  if (!target.fills) return;
  if (!fill.firstChild) fill.append(meter(`Target ${target.target} is filled up`), h("span", {}));
  const share = percent(target.fills.done, target.fills.total);
  setMeter(fill.firstChild, share, target.fills.words, "info");
  const left = target.fills.seconds_left;
  setText(fill.lastChild, `${Math.floor(share)} %${left ? `, ${duration(left)} left` : ""}`);
}

// -- the map ------------------------------------------------------------------------------------------------------------

const CELL = 7;
const GAP = 3;

/** Every chain as a column of its replicas. The list says the same in words, so this is for eyes and pointers alone. */
class ChainMap {
  constructor(choose) {
    this.choose = choose;
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.tip = h("p", { class: "map-tip" }, "Each column is a chain, its head on top.");
    this.element = h("section", { class: "card map", "aria-label": "Map of all chains", hidden: true }, this.canvas, this.tip);
    this.chains = [];
    this.chosen = new Set();
    this.width = 0;
    new ResizeObserver(([entry]) => {
      this.width = Math.floor(entry.contentRect.width);
      this.#draw();
    }).observe(this.element);
    this.canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.canvas.addEventListener("pointerleave", () => this.#tell(null));
    this.canvas.addEventListener("click", (event) => {
      const chain = this.#at(event);
      if (chain) this.choose(chain.chain);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    addEventListener("ember-theme", () => this.#draw());
  }

  update(chains, chosen) {
    this.chains = chains;
    this.chosen = chosen;
    this.element.hidden = chains.length < MAP_FROM;
    this.#draw();
  }

  #draw() {
    if (!this.width || this.element.hidden) return;
    const replicas = Math.max(1, ...this.chains.map((chain) => chain.targets.length));
    this.columns = Math.max(1, Math.floor((this.width + GAP) / (CELL + GAP)));
    this.rowHeight = replicas * (CELL + 1) + GAP + 3;
    const rows = Math.ceil(this.chains.length / this.columns);
    const height = rows * this.rowHeight;
    const scale = devicePixelRatio || 1;
    this.canvas.width = this.width * scale;
    this.canvas.height = height * scale;
    this.canvas.style.setProperty("block-size", `${height}px`);
    const style = getComputedStyle(this.element);
    const colours = Object.fromEntries(["ok", "warn", "bad", "info", "muted"].map((tone) => [tone, style.getPropertyValue(`--${tone}`)]));
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    this.chains.forEach((chain, index) => {
      const x = (index % this.columns) * (CELL + GAP);
      const y = Math.floor(index / this.columns) * this.rowHeight;
      pen.globalAlpha = this.chosen.has(chain.chain) ? 1 : 0.25;
      chain.targets.forEach((target, place) => cell(pen, x, y + place * (CELL + 1), shapeOf(target.state), colours[toneOf(target.state)]));
    });
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / (CELL + GAP));
    const row = Math.floor((event.clientY - box.top) / this.rowHeight);
    return column < this.columns ? this.chains[row * this.columns + column] : undefined;
  }

  #point(event) {
    this.#tell(this.#at(event));
  }

  #tell(chain) {
    this.canvas.classList.toggle("pointing", Boolean(chain));
    if (!chain) return setText(this.tip, "Each column is a chain, its head on top.");
    const targets = chain.targets.map((target) => `${target.target} on node ${target.node} ${target.state}`).join(", ");
    setText(this.tip, `Chain ${chain.chain}, ${chain.state}: ${targets}`);
  }
}

/** Filled: serves. Half: is filled up. Frame: waits. Cross in a frame: does not serve. */
function cell(pen, x, y, shape, colour) {
  pen.fillStyle = colour;
  pen.strokeStyle = colour;
  pen.lineWidth = 1.3;
  if (shape === "ok") return pen.fillRect(x, y, CELL, CELL);
  pen.strokeRect(x + 0.65, y + 0.65, CELL - 1.3, CELL - 1.3);
  if (shape === "busy") pen.fillRect(x, y + CELL / 2, CELL, CELL / 2);
  if (shape === "bad" || shape === "warn") {
    pen.beginPath();
    pen.moveTo(x + 1, y + 1);
    pen.lineTo(x + CELL - 1, y + CELL - 1);
    pen.moveTo(x + CELL - 1, y + 1);
    pen.lineTo(x + 1, y + CELL - 1);
    pen.stroke();
  }
}

// -- moves --------------------------------------------------------------------------------------------------------------

function movesTable() {
  const table = new Table({
    label: "Targets that move",
    keyOf: (move) => move.move,
    empty: "",
    columns: [
      { key: "move", label: "Move", number: true, value: (move) => move.move },
      { key: "chain", label: "Chain", number: true, value: (move) => move.chain },
      { key: "joins", label: "Joins", value: (move) => (move.node ? `${move.joins ?? "new"} on node ${move.node}` : "–") },
      { key: "leaves", label: "Leaves", value: (move) => (move.leaves ? `${move.leaves}${move.source ? ` on node ${move.source}` : ""}` : "–") },
      { key: "cause", label: "Cause", value: (move) => move.cause },
      {
        key: "state",
        label: "State",
        wide: true,
        value: (move) => move.state,
        cell: () => h("span", { class: "move-state" }, h("span", {}), meter("Filled up")),
        change: (cell, move) => {
          const [words, bar] = cell.firstChild.children;
          setText(words, move.doing ? `${move.state}: ${move.doing}` : move.state);
          bar.hidden = move.total === undefined;
          if (move.total === undefined) return;
          const share = percent(move.done, move.total);
          setMeter(bar, share, `${Math.round(share)} percent`, "info");
        },
      },
    ],
  });
  const element = h("section", { class: "moves", hidden: true }, h("h2", {}, "Targets that move"), h("div", { class: "card flush" }, table.element));
  return {
    element,
    update: (moves) => {
      element.hidden = moves.length === 0;
      if (moves.length) table.update(moves);
    },
  };
}
