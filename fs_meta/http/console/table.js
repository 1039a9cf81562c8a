// Tables that sort and filter, and become cards where the page is narrow.

import { h, keyed, setAttribute, setText } from "./dom.js";

/**
 * `columns`: [{key, label, number?, wide?, value(item), cell(item)?, change(td, item)?}]. `value` is what is sorted by;
 * `cell` makes the contents, `change` fills them in (by default: the value). `wide`: a card's whole width.
 */
export class Table {
  constructor({ label, columns, keyOf, sort, empty, page = 100 }) {
    this.columns = columns;
    this.keyOf = keyOf;
    this.sort = sort ?? null; // {key, down}
    this.page = page;
    this.limit = page;
    this.items = [];
    const row = h("tr", {});
    this.heads = new Map();
    for (const column of columns) {
      const button = h("button", { type: "button", class: "sort", onclick: () => this.#sortBy(column.key) }, column.label);
      const head = h("th", { scope: "col", class: column.number ? "number" : null }, column.value ? button : column.label);
      this.heads.set(column.key, head);
      row.append(head);
    }
    this.body = h("tbody", {});
    this.empty = h("p", { class: "empty", hidden: true }, empty);
    this.more = h("button", { type: "button", class: "more", hidden: true, onclick: () => this.#showMore() });
    this.table = h("table", { class: "cards", "aria-label": label }, h("thead", {}, row), this.body);
    this.element = h("div", { class: "table-frame" }, this.table, this.empty, this.more);
    this.#heads();
  }

  update(items) {
    this.items = items;
    const sorted = this.#sorted(items);
    const shown = sorted.slice(0, this.limit);
    keyed(this.body, shown, this.keyOf, (item) => this.#row(item), (row, item) => this.#change(row, item));
    this.table.hidden = items.length === 0;
    this.empty.hidden = items.length !== 0;
    const left = sorted.length - shown.length;
    this.more.hidden = left === 0;
    setText(this.more, `Show ${Math.min(left, this.page)} more of ${left}`);
  }

  #row(item) {
    return h(
      "tr",
      {},
      this.columns.map((column) =>
        h("td", { class: column.number ? "number" : column.wide ? "wide" : null, "data-label": column.label }, column.cell ? column.cell(item) : null),
      ),
    );
  }

  #change(row, item) {
    this.columns.forEach((column, index) => {
      const cell = row.children[index];
      if (column.change) column.change(cell, item);
      else if (!column.cell) setText(cell, String(column.value(item) ?? "–"));
    });
    this.rowChanged?.(row, item);
  }

  #sortBy(key) {
    this.sort = { key, down: this.sort?.key === key ? !this.sort.down : false };
    this.#heads();
    this.update(this.items);
  }

  #heads() {
    for (const [key, head] of this.heads) {
      const sorted = this.sort?.key === key;
      setAttribute(head, "aria-sort", sorted ? (this.sort.down ? "descending" : "ascending") : null);
    }
  }

  #sorted(items) {
    if (!this.sort) return items;
    const { value } = this.columns.find(({ key }) => key === this.sort.key);
    const turn = this.sort.down ? -1 : 1;
    return [...items].sort((one, other) => turn * compare(value(one), value(other)));
  }

  #showMore() {
    this.limit += this.page;
    const first = this.body.children.length;
    this.update(this.items);
    this.body.children[first]?.querySelector("a, button")?.focus();
  }
}

function compare(one, other) {
  if (one === other) return 0;
  if (one === null || one === undefined) return 1;
  if (other === null || other === undefined) return -1;
  return one < other ? -1 : 1;
}
