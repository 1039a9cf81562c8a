// Which metadata calls are made now, and which operations were slow lately.

import { h, setText } from "./dom.js";
import { clock, dateTime, milliseconds, percent, perSecond, visible } from "./format.js";
import { meter, setMeter } from "./marks.js";
import { Table } from "./table.js";

export const title = "Operations";

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
    keyOf: (operation) => `${operation.node} ${operation.ended_s} ${operation.trace} ${operation.operation} ${operation.took_ms}`,
    empty: "Nothing took long lately.",
    columns: [
      { key: "ended", label: "When", value: (operation) => operation.ended_s, change: (cell, operation) => setText(cell, when(operation.ended_s)) },
      { key: "took", label: "Took", number: true, value: (operation) => operation.took_ms, change: (cell, operation) => setText(cell, milliseconds(operation.took_ms)) },
      { key: "operation", label: "Operation", value: (operation) => operation.operation, cell: () => h("code", {}), change: (cell, operation) => setText(cell.firstChild, operation.operation) },
      { key: "where", label: "Where", value: (operation) => operation.node ?? 0, change: (cell, operation) => setText(cell, operation.node ? `node ${operation.node}` : "metadata") },
      { key: "about", label: "About", wide: true, value: (operation) => operation.about, change: (cell, operation) => setText(cell, visible(operation.about)) },
      { key: "times", label: "Of these", wide: true, change: (cell, operation) => setText(cell, times(operation.times_ms)) },
      { key: "peer", label: "For whom", value: (operation) => operation.peer, change: (cell, operation) => setText(cell, visible(operation.peer)) },
      { key: "trace", label: "Trace", value: (operation) => operation.trace, cell: () => h("code", {}), change: (cell, operation) => setText(cell.firstChild, operation.trace) },
      { key: "error", label: "Error", value: (operation) => operation.error, change: (cell, operation) => setText(cell, operation.error) },
    ],
  });
  const hidden = h("p", { class: "empty", hidden: true }, "Slow operations name paths: they are shown to those whose token may administer the cluster.");
  const frame = h("div", { class: "card flush" }, slow.element);

  const element = h(
    "div",
    {},
    h("h1", { tabindex: -1 }, title),
    h("h2", {}, "Metadata calls now"),
    h("div", { class: "card flush" }, calls.element),
    h("div", { class: "section-head" }, h("h2", {}, "Slow operations"), h("p", { class: "found" }, "The trace is in the logs of all daemons.")),
    frame,
    hidden,
  );
  return {
    element,
    update: (store) => {
      most = Math.max(1e-9, ...store.operations.map((operation) => operation.calls));
      calls.update(store.operations);
      frame.hidden = store.slow === null;
      hidden.hidden = store.slow !== null || store.connection.state !== "live";
      if (store.slow) slow.update(store.slow);
    },
  };
}

function when(seconds) {
  const date = new Date(seconds * 1000);
  return Date.now() - date.getTime() < 12 * 3_600_000 ? clock(date) : dateTime(date);
}

function times(parts) {
  return Object.entries(parts)
    .map(([name, ms]) => `${name} ${milliseconds(ms)}`)
    .join(", ");
}
