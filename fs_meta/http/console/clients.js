// Who is connected: programs and mounts.

import { Chart } from "./chart.js";
import { h, setText } from "./dom.js";
import { count, counted, duration, visible } from "./format.js";
import { Table } from "./table.js";

export const title = "Clients and mounts";

export function create() {
  const filter = h("input", { type: "search", id: "client-filter", placeholder: "Host, process, mount", autocomplete: "off", spellcheck: "false" });
  const found = h("p", { class: "found", role: "status" });
  let last = null;
  const table = new Table({
    label: "Clients and mounts",
    keyOf: (client) => `${client.client} ${client.host} ${client.pid}`,
    empty: "Nobody is connected.",
    columns: [
      { key: "host", label: "Host", value: (client) => client.host, change: (cell, client) => setText(cell, visible(client.host) || "–") },
      { key: "pid", label: "Process", number: true, value: (client) => client.pid, change: (cell, client) => setText(cell, String(client.pid || "–")) },
      { key: "program", label: "Program or mount", wide: true, value: (client) => client.program || client.kind, change: (cell, client) => setText(cell, visible(client.program || client.kind)) },
      { key: "for", label: "Connected for", number: true, value: (client) => client.for_s, change: (cell, client) => setText(cell, duration(client.for_s)) },
      { key: "connections", label: "Connections", number: true, value: (client) => client.connections },
      { key: "holds", label: "Open files or locks", value: (client) => (client.holds ? "may have" : "none") },
      { key: "client", label: "Client id", value: (client) => client.client, cell: () => h("code", {}), change: (cell, client) => setText(cell.firstChild, client.client) },
    ],
  });
  filter.addEventListener("input", () => last && update(last));
  const chart = new Chart({ title: "The last hour", lines: [{ name: "clients", label: "connected clients" }], format: count, floor: 2 });

  function update(store) {
    last = store;
    const words = filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const shown = store.clients.filter((client) =>
      words.every((word) => [client.host, String(client.pid), client.kind, client.program, client.client].some((value) => value.toLowerCase().includes(word))),
    );
    table.update(shown);
    chart.update(store.samples, 3_600_000);
    const mounts = store.clients.filter((client) => client.kind === "mount").length;
    const all = store.cluster?.clients ?? store.clients.length;
    const more = all > store.clients.length ? `, the first ${count(store.clients.length)} are listed` : "";
    setText(found, all ? `${counted(all, "client")}, ${counted(mounts, "mount")} among them${more}` : "");
  }

  const element = h(
    "div",
    {},
    h("h1", { tabindex: -1 }, title),
    h("div", { class: "tools" }, h("label", { class: "filter", for: "client-filter" }, "Filter", filter), found),
    h("div", { class: "card flush" }, table.element),
    h("div", { class: "charts below" }, chart.element),
  );
  return { element, update, filter };
}
