// Health in words, what is being done and what to do; space, throughput and rates, now and over the last hour.

import { Chart } from "./chart.js";
import { h, keyed, setAttribute, setText } from "./dom.js";
import { bytes, bytesPerSecond, count, counted, milliseconds, percent, perSecond } from "./format.js";
import { mark, meter, setMeter, shapeOf, toneOf } from "./marks.js";
import { prefer, preference } from "./preferences.js";

const SPANS = [
  ["5", "5 min"],
  ["15", "15 min"],
  ["60", "1 hour"],
];

const MISSING = 4; // Of what is missing, and
const LINES = 6; // of what is done about it: the rest is among the chains.

export const title = "Overview";

export function headline(cluster) {
  if (!cluster) return "Waiting for the metadata server";
  switch (cluster.health) {
    case "healthy":
      return "The cluster is healthy";
    case "starting":
      return "The cluster is starting";
    case "offline":
      return "Part of the data cannot be reached";
    default:
      return cluster.resting ? "The cluster rests" : "The cluster is degraded";
  }
}

export function stateOf(cluster) {
  return cluster.resting && cluster.health === "degraded" ? "resting" : cluster.health;
}

function because(cluster) {
  const words = cluster.missing.slice(0, MISSING);
  const more = cluster.missing_more + cluster.missing.length - words.length;
  return more ? `${words.join(", ")}, and ${count(more)} more` : words.join(", ");
}

class Health {
  constructor() {
    this.sign = h("span", { class: "health-sign" });
    this.words = h("h2", {}, headline(null));
    this.more = h("p", { class: "health-more" });
    this.lists = h("div", { class: "health-lists" });
    this.element = h("section", { class: "card health", "aria-label": "Health" }, this.sign, h("div", {}, this.words, this.more, this.lists));
  }

  update({ cluster, connection }) {
    if (!cluster) return;
    const lost = connection.state === "lost";
    const state = lost ? "unknown" : stateOf(cluster);
    setAttribute(this.element, "data-tone", toneOf(state));
    if (this.sign.dataset.shape !== shapeOf(state)) {
      this.sign.dataset.shape = shapeOf(state);
      this.sign.replaceChildren(mark(shapeOf(state)));
    }
    setText(this.words, lost ? `When it was seen last: ${headline(cluster).toLowerCase()}` : headline(cluster));
    const well =
      `${counted(cluster.nodes_up, "node")} up, ` +
      `${counted(cluster.chains, "chain")} of ${counted(cluster.replicas, "replica")}, everything serves`;
    setText(this.more, cluster.health === "healthy" ? well : because(cluster));
    const lists = [
      ["rest", "", cluster.resting ? [cluster.resting] : []],
      ["todo", "To do", cluster.helps],
      ["healing", "What is wrong, and what is done about it", healing(cluster)],
      ["troubles", "Do not serve", cluster.troubles.map(({ target, node, reason }) => `target ${target} on node ${node}: ${reason}`)],
      ["warnings", "Serve, but", cluster.warnings.map(({ target, node, reason }) => `target ${target} on node ${node}: ${reason}`)],
      ["manager", "", cluster.manages ? [] : ["another metadata server is the manager: what is done about chains is known there"]],
    ].filter(([, , lines]) => lines.length);
    keyed(
      this.lists,
      lists,
      ([name]) => name,
      ([name, heading]) => h("div", { class: `health-list ${name}` }, heading ? h("h3", {}, heading) : null, h("ul", {})),
      (node, [, , lines]) =>
        keyed(
          node.lastChild,
          lines.map((line, index) => ({ line, index })),
          ({ index }) => index,
          () => h("li", {}),
          (item, { line }) => setText(item, line),
        ),
    );
  }
}

function healing(cluster) {
  const lines = cluster.healing.flatMap(({ chain, what }) => what.map((line) => `chain ${chain}: ${line}`));
  const left = cluster.healing_more + lines.length - LINES;
  return left > 0 ? [...lines.slice(0, LINES), `and ${count(left)} more: see Chains`] : lines;
}

class Tile {
  constructor(label, href) {
    this.value = h("b", {}, "–");
    this.detail = h("span", { class: "tile-detail" });
    this.extra = h("span", { class: "tile-extra" });
    this.element = h(href ? "a" : "div", { class: "card tile", href }, h("span", { class: "tile-label" }, label), this.value, this.extra, this.detail);
  }
}

export function create() {
  const health = new Health();
  const space = new Tile("Space used", "#/nodes");
  const bar = meter("Space used");
  space.extra.append(bar);
  const read = new Tile("Read");
  const write = new Tile("Written");
  const names = new Tile("Metadata operations", "#/operations");
  const inodes = new Tile("Files and directories", "#/files");
  const charts = [
    new Chart({
      title: "Throughput",
      lines: [
        { name: "read_bytes", label: "read" },
        { name: "write_bytes", label: "written" },
      ],
      format: bytesPerSecond,
      base: 1024,
      floor: 1024,
      note: "What clients read and wrote, replicas not counted again.",
    }),
    new Chart({
      title: "Storage operations",
      lines: [
        { name: "reads", label: "reads" },
        { name: "writes", label: "writes" },
      ],
      format: perSecond,
      floor: 1,
    }),
    new Chart({
      title: "Metadata operations",
      lines: [
        { name: "looks", label: "looks" },
        { name: "changes", label: "changes" },
      ],
      format: perSecond,
      floor: 1,
    }),
    new Chart({
      title: "Latency",
      lines: [
        { name: "read_ms", label: "read" },
        { name: "write_ms", label: "write" },
        { name: "metadata_ms", label: "metadata" },
      ],
      format: milliseconds,
      floor: 0.1,
      note: "Means, as servers measure them; of writes, over all replicas.",
    }),
    new Chart({
      title: "Errors",
      lines: [
        { name: "storage_errors", label: "storage" },
        { name: "refusals", label: "calls refused" },
      ],
      format: perSecond,
      floor: 1,
      note: "Metadata calls are refused for what programs expect, too: no such name.",
    }),
    new Chart({
      title: "Space used",
      lines: [{ name: "used_bytes", label: "on all disks" }],
      format: bytes,
      base: 1024,
      limit: "capacity_bytes",
      note: "Replicas included. The dashed line is what the disks have.",
    }),
  ];
  let span = preference("span", "5", SPANS.map(([minutes]) => minutes));
  const spans = h("fieldset", { class: "segments" }, h("legend", { class: "hidden" }, "Charts show the last"));
  for (const [minutes, label] of SPANS) {
    const input = h("input", { type: "radio", name: "span", value: minutes, checked: minutes === span });
    input.addEventListener("change", () => choose(minutes));
    spans.append(h("label", {}, input, h("span", {}, label)));
  }
  let last = null;

  function choose(minutes) {
    span = minutes;
    prefer("span", minutes);
    for (const input of spans.querySelectorAll("input")) input.checked = input.value === minutes;
    if (last) update(last);
  }

  function update(store) {
    last = store;
    health.update(store);
    const { cluster, samples } = store;
    if (cluster) {
      const capacity = cluster.raw_capacity_bytes;
      const used = capacity - cluster.raw_free_bytes;
      const share = percent(used, capacity);
      setText(space.value, capacity ? `${share < 9.95 && share > 0 ? share.toFixed(1) : Math.round(share)} %` : "–");
      setMeter(bar, share, `${Math.round(share)} percent`, share >= 90 ? "bad" : share >= 80 ? "warn" : null);
      setText(space.detail, `${bytes(used)} of ${bytes(capacity)} on the disks`);
      setText(inodes.value, count(cluster.inodes));
      setText(inodes.detail, `${counted(cluster.clients, "client")} connected`);
    }
    setText(read.value, bytesPerSecond(samples.last("read_bytes")));
    setText(read.detail, `${perSecond(samples.last("reads"))} reads`);
    setText(write.value, bytesPerSecond(samples.last("write_bytes")));
    setText(write.detail, `${perSecond(samples.last("writes"))} writes`);
    const calls = samples.last("looks") === null ? null : samples.last("looks") + samples.last("changes");
    setText(names.value, perSecond(calls));
    setText(names.detail, `of these ${perSecond(samples.last("changes"))} changes`);
    for (const chart of charts) {
      const known = chart.lines.some(({ name }) => name in samples.series);
      chart.element.hidden = samples.at.length > 0 && !known;
      chart.update(samples, Number(span) * 60_000);
    }
  }

  const element = h(
    "div",
    {},
    h("h1", { tabindex: -1 }, title),
    health.element,
    h("div", { class: "tiles" }, space.element, read.element, write.element, names.element, inodes.element),
    h("div", { class: "section-head" }, h("h2", {}, "Activity"), spans),
    h("div", { class: "charts" }, charts.map((chart) => chart.element)),
  );

  return {
    element,
    update,
    keys: {
      r: () => {
        const order = SPANS.map(([minutes]) => minutes);
        choose(order[(order.indexOf(span) + 1) % order.length]);
      },
    },
  };
}
