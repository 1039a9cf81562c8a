// Which metadata calls are made now, and which operations were slow lately.

import { h, setText } from "./dom.js";
import { milliseconds, percent, perSecond } from "./format.js";
import { meter, setMeter } from "./marks.js";
import { json } from "./session.js";
import { Table } from "./table.js";

export const title = "Operations";

const SLOW_PATH = "/api/v1/slow";
const AGAIN_MS = 5000;

export function create() {
  let most = 1;
  const calls = new Table({
    label: "Metadata calls by operation",
    keyOf: (operation) => operation.operation,
    empty: "No metadata calls just now.",
    columns: [
      { key: "operation", label: "Operation", value: (operation) => operation.operation, cell: () => h("code", {}), change: (cell, operation) => setText(cell.firstChild, operation.operation) },
      {
        key: "calls",
        label: "Calls",
        number: true,
        value: (operation) => operation.calls,
        change: (cell, operation) => setText(cell, perSecond(operation.calls)),
      },
      {
        key: "share",
        label: "Share",
        cell: (operation) => meter(`Calls of ${operation.operation}`),
        change: (cell, operation) => setMeter(cell.firstChild, percent(operation.calls, most), perSecond(operation.calls)),
      },
      { key: "errors", label: "Refused", number: true, value: (operation) => operation.errors, change: (cell, operation) => setText(cell, operation.errors ? perSecond(operation.errors) : "–") },
    ],
  });
  const slow = new Table({
    label: "Slow operations",
    keyOf: (operation) => operation.key,
    empty: "No operation was slow lately.",
    columns: [
      { key: "when", label: "When", value: (operation) => operation.when },
      { key: "operation", label: "Operation", value: (operation) => operation.operation },
      { key: "took", label: "Took", number: true, value: (operation) => operation.ms, change: (cell, operation) => setText(cell, milliseconds(operation.ms)) },
      { key: "where", label: "Where", value: (operation) => operation.where },
      { key: "who", label: "For whom", value: (operation) => operation.who },
      { key: "trace", label: "Trace", value: (operation) => operation.trace, cell: () => h("code", {}), change: (cell, operation) => setText(cell.firstChild, operation.trace) },
      { key: "detail", label: "Detail", value: (operation) => operation.detail },
    ],
  });
  const said = h("p", { class: "found", role: "status" });
  let timer = null;
  let showing = false;

  async function look() {
    clearTimeout(timer);
    try {
      const found = await json(SLOW_PATH);
      setText(said, "");
      slow.update((found.operations ?? []).map(shown));
    } catch (error) {
      setText(said, error.message);
    }
    if (showing) timer = setTimeout(look, AGAIN_MS);
  }

  const element = h(
    "div",
    {},
    h("h1", { tabindex: -1 }, title),
    h("h2", {}, "Metadata calls now"),
    h("div", { class: "card flush" }, calls.element),
    h("div", { class: "section-head" }, h("h2", {}, "Slow operations"), said),
    h("div", { class: "card flush" }, slow.element),
  );
  return {
    element,
    update: (store) => {
      most = Math.max(1e-9, ...store.operations.map((operation) => operation.calls));
      calls.update(store.operations);
    },
    show: () => {
      showing = true;
      look();
    },
    leave: () => {
      showing = false;
      clearTimeout(timer);
    },
  };
}

function shown(operation, index) {
  return {
    key: `${operation.at ?? ""} ${operation.trace ?? ""} ${operation.operation ?? ""} ${index}`,
    when: operation.at ? new Date(operation.at).toLocaleTimeString() : "–",
    operation: operation.operation ?? "–",
    ms: operation.ms ?? null,
    where: operation.where ?? "–",
    who: operation.client ?? "–",
    trace: operation.trace ?? "–",
    detail: operation.detail ?? "",
  };
}
