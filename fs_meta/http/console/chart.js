// A chart of some series over the last minutes, drawn as SVG. Lines differ by dashes as well as by colour; where many
// samples share a pixel the line is their mean, and a band around it shows the least and the most.
//
// With a pointer or the arrow keys one moment is read out exactly.

import { h, s, setAttribute, setText } from "./dom.js";
import { clock, clockMinutes } from "./format.js";

const HEIGHT = 168;
const LEFT = 58;
const RIGHT = 10;
const TOP = 10;
const BOTTOM = 22;
const BINARY = 1024;

/**
 * `lines`: [{name, label}] of the store's samples. `format`: of a value in words. `base`: 1000 or 1024, for round
 * numbers at the axis. `limit`: the series that is a ceiling, drawn as such.
 */
export class Chart {
  constructor({ title, note, lines, format, base = 1000, floor = 0, limit = null }) {
    this.title = title;
    this.lines = lines;
    this.format = format;
    this.base = base;
    this.floor = floor; // The scale ends no lower than here.
    this.limit = limit;
    this.width = 0;
    this.cursor = null; // A moment that is read out, in ms; null: the newest.
    this.shown = null; // What was drawn last.
    this.values = new Map();
    const legend = h("ul", { class: "legend" });
    lines.forEach((line, index) => {
      const value = h("b", {}, "–");
      this.values.set(line.name, value);
      const sample = s("svg", { viewBox: "0 0 22 8", class: `sample line-${index}`, "aria-hidden": "true" }, s("path", { d: "M1 4H21" }));
      legend.append(h("li", {}, sample, h("span", {}, line.label), value));
    });
    this.moment = h("span", { class: "moment" }, "now");
    this.svg = s("svg", { class: "plot", "aria-hidden": "true" });
    this.frame = h(
      "div",
      { class: "plot-frame", tabindex: 0, role: "img", "aria-describedby": null },
      this.svg,
    );
    this.spoken = h("p", { class: "hidden", "aria-live": "polite" });
    this.element = h(
      "figure",
      { class: "card chart" },
      h("figcaption", {}, h("h3", {}, title), this.moment),
      legend,
      this.frame,
      note ? h("p", { class: "note" }, note) : null,
      this.spoken,
    );
    this.frame.addEventListener("pointermove", (event) => this.#point(event));
    this.frame.addEventListener("pointerleave", () => this.#read(null));
    this.frame.addEventListener("keydown", (event) => this.#key(event));
    this.frame.addEventListener("blur", () => this.#read(null));
    this.observer = new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width && width !== this.width) {
        this.width = width;
        if (this.samples) this.update(this.samples, this.spanMs);
      }
    });
    this.observer.observe(this.frame);
  }

  update(samples, spanMs) {
    this.samples = samples;
    this.spanMs = spanMs;
    if (!this.width) return;
    const to = samples.at.at(-1) ?? Date.now();
    const from = to - spanMs;
    const first = firstAfter(samples.at, from);
    const top = this.#scale(samples, first);
    this.shown = { from, to, first, top: top.value };
    this.#draw(samples, top);
    this.#values();
    setAttribute(this.frame, "aria-label", this.#summary(samples, first));
  }

  #x(at) {
    const { from, to } = this.shown;
    return LEFT + ((at - from) / (to - from)) * (this.width - LEFT - RIGHT);
  }

  #y(value) {
    return HEIGHT - BOTTOM - (value / this.shown.top) * (HEIGHT - TOP - BOTTOM);
  }

  #scale(samples, first) {
    let most = this.floor;
    for (const { name } of this.limit ? [...this.lines, { name: this.limit }] : this.lines) {
      const values = samples.series[name] ?? [];
      for (let i = first; i < values.length; i += 1) if (values[i] > most) most = values[i];
    }
    return roundScale(most, this.base);
  }

  #draw(samples, { value: top, step }) {
    const parts = [];
    const right = this.width - RIGHT;
    for (let value = 0; value <= top * 1.0001; value += step) {
      const y = Math.round(this.#y(value)) + 0.5;
      parts.push(s("path", { class: value === 0 ? "axis" : "grid", d: `M${LEFT} ${y}H${right}` }));
      parts.push(s("text", { class: "tick", x: LEFT - 7, y: y + 3.5, "text-anchor": "end" }, this.format(value)));
    }
    const { from, to } = this.shown;
    const count = this.width < 340 ? 2 : 4;
    for (let k = 0; k <= count; k += 1) {
      const at = from + ((to - from) * k) / count;
      const x = LEFT + ((right - LEFT) * k) / count;
      const anchor = k === 0 ? "start" : k === count ? "end" : "middle";
      const label = k === count ? this.#newest(clockMinutes) : clockMinutes(new Date(at));
      parts.push(s("text", { class: "tick", x, y: HEIGHT - 5, "text-anchor": anchor }, label));
    }
    if (this.limit) {
      const value = samples.last(this.limit);
      if (value) parts.push(s("path", { class: "limit", d: `M${LEFT} ${this.#y(value).toFixed(1)}H${right}` }));
    }
    this.lines.forEach(({ name }, index) => {
      const points = this.#points(samples, name);
      const { band, line, area } = paths(points, this.#y(0));
      if (index === 0 && area) parts.push(s("path", { class: "area line-0", d: area }));
      if (band) parts.push(s("path", { class: `band line-${index}`, d: band }));
      if (line) parts.push(s("path", { class: `line line-${index}`, d: line }));
    });
    if (!samples.at.length) {
      parts.push(s("text", { class: "tick", x: (LEFT + right) / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "no samples yet"));
    }
    this.hair = s("g", { class: "hair" });
    parts.push(this.hair);
    setAttribute(this.svg, "viewBox", `0 0 ${this.width} ${HEIGHT}`);
    setAttribute(this.svg, "width", this.width);
    setAttribute(this.svg, "height", HEIGHT);
    this.svg.replaceChildren(...parts);
    this.#hair();
  }

  /** Runs of points without a gap: [{x, y, least, most}]. One point a pixel at most. */
  #points(samples, name) {
    const values = samples.series[name] ?? [];
    const gap = samples.intervalMs * 3.5;
    const runs = [];
    let run = null;
    let bucket = null;
    let last = -Infinity;
    const flush = () => {
      if (bucket) run.push({ x: bucket.x, y: this.#y(bucket.sum / bucket.count), least: this.#y(bucket.least), most: this.#y(bucket.most) });
      bucket = null;
    };
    for (let i = Math.max(0, this.shown.first - 1); i < values.length; i += 1) {
      const value = values[i];
      const at = samples.at[i];
      if (value === null || at - last > gap) {
        flush();
        run = null;
      }
      if (value === null) continue;
      last = at;
      if (!run) runs.push((run = []));
      const x = Math.max(LEFT, Math.round(this.#x(at)));
      if (bucket && bucket.x !== x) flush();
      bucket ??= { x, sum: 0, count: 0, least: value, most: value };
      bucket.sum += value;
      bucket.count += 1;
      bucket.least = Math.min(bucket.least, value);
      bucket.most = Math.max(bucket.most, value);
    }
    flush();
    return runs;
  }

  // -- reading one moment ---------------------------------------------------------------------------------------------

  #point(event) {
    const box = this.frame.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / (this.width - LEFT - RIGHT);
    if (!this.shown) return;
    this.#read(this.shown.from + share * (this.shown.to - this.shown.from));
  }

  #key(event) {
    if (!this.shown || !this.samples.at.length) return;
    const { at } = this.samples;
    let index = this.#index() ?? at.length - 1;
    const far = Math.max(1, Math.round((at.length - this.shown.first) / 10));
    if (event.key === "ArrowLeft") index -= event.shiftKey ? far : 1;
    else if (event.key === "ArrowRight") index += event.shiftKey ? far : 1;
    else if (event.key === "Home") index = this.shown.first;
    else if (event.key === "End") index = at.length - 1;
    else if (event.key === "Escape") return this.#read(null);
    else return;
    event.preventDefault();
    index = Math.min(at.length - 1, Math.max(this.shown.first, index));
    this.#read(at[index]);
    const words = this.lines.map((line) => `${line.label} ${this.format(this.samples.series[line.name]?.[index] ?? null)}`);
    setText(this.spoken, `${clock(new Date(at[index]))}: ${words.join(", ")}`);
  }

  #read(at) {
    this.cursor = at;
    if (!this.shown) return;
    this.#values();
    this.#hair();
  }

  /** The sample that is read out; null: none is. */
  #index() {
    if (this.cursor === null || !this.samples?.at.length) return null;
    const { at } = this.samples;
    const after = firstAfter(at, this.cursor);
    if (after === 0) return 0;
    if (after >= at.length) return at.length - 1;
    return this.cursor - at[after - 1] < at[after] - this.cursor ? after - 1 : after;
  }

  #values() {
    const index = this.#index();
    for (const { name } of this.lines) {
      const values = this.samples.series[name] ?? [];
      setText(this.values.get(name), this.format((index === null ? values.at(-1) : values[index]) ?? null));
    }
    setText(this.moment, index === null ? this.#newest(clock) : clock(new Date(this.samples.at[index])));
  }

  /** When the newest sample is from: "now", unless nothing has come for a while. */
  #newest(format) {
    const at = this.samples.at.at(-1);
    return at === undefined || Date.now() - at < this.samples.intervalMs * 5 ? "now" : format(new Date(at));
  }

  #hair() {
    const index = this.#index();
    if (index === null || index < this.shown.first) return this.hair.replaceChildren();
    const x = Math.round(this.#x(this.samples.at[index])) + 0.5;
    const parts = [s("path", { d: `M${x} ${TOP}V${HEIGHT - BOTTOM}` })];
    this.lines.forEach(({ name }, number) => {
      const value = this.samples.series[name]?.[index];
      if (value !== null && value !== undefined) parts.push(s("circle", { class: `line-${number}`, cx: x, cy: this.#y(value), r: 3.5 }));
    });
    this.hair.replaceChildren(...parts);
  }

  #summary(samples, first) {
    const words = this.lines.map((line) => {
      const values = (samples.series[line.name] ?? []).slice(first).filter((value) => value !== null);
      if (!values.length) return `${line.label}: not known`;
      return `${line.label}: ${this.format(values.at(-1))} now, at most ${this.format(Math.max(...values))}`;
    });
    return `${this.title}, the last ${Math.round(this.spanMs / 60_000)} minutes. ${words.join(". ")}. Arrow keys read single moments.`;
  }
}

function firstAfter(at, moment) {
  let low = 0;
  let high = at.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (at[middle] < moment) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The end of a scale with round numbers, and its steps. */
export function roundScale(most, base) {
  if (!(most > 0)) return { value: base === BINARY ? BINARY : 1, step: base === BINARY ? BINARY / 2 : 0.5 };
  const unit = base ** Math.floor(Math.log(most) / Math.log(base));
  const inUnits = most / unit;
  const ten = 10 ** Math.floor(Math.log10(inUnits));
  for (const nice of [1, 2, 3, 4, 5, 6, 8, 10]) {
    const value = nice * ten * unit;
    if (value >= most) {
      const steps = { 1: 2, 2: 2, 3: 3, 4: 4, 5: 5, 6: 3, 8: 4, 10: 2 }[nice];
      return { value, step: value / steps };
    }
  }
  return { value: most, step: most / 2 };
}

function paths(runs, zero) {
  let line = "";
  let band = "";
  let area = "";
  for (const run of runs) {
    const way = run.map(({ x, y }) => `${x} ${y.toFixed(1)}`);
    line += run.length === 1 ? `M${run[0].x - 0.5} ${run[0].y.toFixed(1)}h1` : `M${way.join("L")}`;
    area += `M${run[0].x} ${zero.toFixed(1)}L${way.join("L")}L${run.at(-1).x} ${zero.toFixed(1)}Z`;
    if (run.some(({ least, most }) => least - most > 1)) {
      const up = run.map(({ x, most }) => `${x} ${most.toFixed(1)}`);
      const down = run.map(({ x, least }) => `${x} ${least.toFixed(1)}`).reverse();
      band += `M${up.join("L")}L${down.join("L")}Z`;
    }
  }
  return { line, band, area };
}
