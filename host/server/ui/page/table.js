// Tables: a live one whose rows are kept by key, and a plain one.

import { append, button, el, setAttribute, setText } from "./dom.js";

const collator = new Intl.Collator("en", { numeric: true });

/** Orders values; those that are missing come last in both directions. */
function compare(left, right, direction) {
  const [noLeft, noRight] = [left, right].map((value) => value === null || value === undefined);
  if (noLeft || noRight) return Number(noLeft) - Number(noRight);
  const order = typeof left === "number" ? left - right : collator.compare(left, right);
  return order * direction;
}

/**
 * A column has `id`, `label` and `text(row)`. It may have `value(row)` to sort by, `number`,
 * `tone(row)` for its class, `head` if its cells name their rows, and `render(cell, row, text)`,
 * which runs when the text or the tone has changed.
 */
export class Table {
  #columns;
  #key;
  #rows = [];
  #entries = new Map();
  #sort;
  #body = el("tbody", { role: "rowgroup" });
  #heads = new Map();
  #empty;

  constructor({ caption, columns, key, sort = null, empty = "None", className = "" }) {
    this.#columns = columns;
    this.#key = key;
    this.#sort = sort;
    this.#empty = el("p", { class: "empty" }, empty);
    const heads = columns.map((column) => this.#head(column));
    this.table = el(
      "table",
      { role: "table", class: `stacks ${className}` },
      el("caption", { class: "unseen" }, caption),
      el(
        "thead",
        { role: "rowgroup", class: sort ? "sorts" : null },
        el("tr", { role: "row" }, heads),
      ),
      this.#body,
    );
    this.element = el("div", { class: "table" }, this.table, this.#empty);
    this.#markSort();
  }

  /** Shows these rows. Cells whose text is the same are not touched. */
  update(rows) {
    this.#rows = rows;
    const shown = this.#sorted();
    const unused = new Map(this.#entries);
    const focused = document.activeElement;
    let place = this.#body.firstElementChild;
    for (const row of shown) {
      const key = this.#key(row);
      unused.delete(key);
      const entry = this.#entries.get(key) ?? this.#create(key);
      this.#fill(entry, row);
      if (entry.element === place) place = place.nextElementSibling;
      else this.#body.insertBefore(entry.element, place);
    }
    for (const [key, entry] of unused) {
      entry.element.remove();
      this.#entries.delete(key);
    }
    // A row that moves loses the focus.
    if (focused !== document.activeElement && this.#body.contains(focused))
      focused.focus({ preventScroll: true });
    this.#empty.hidden = rows.length > 0;
    this.table.hidden = rows.length === 0;
  }

  /** The element of a row. */
  row(key) {
    return this.#entries.get(key)?.element ?? null;
  }

  setEmpty(text) {
    setText(this.#empty, text);
  }

  #head(column) {
    const attributes = {
      role: "columnheader",
      scope: "col",
      class: column.number ? "number" : null,
    };
    if (!this.#sort) return el("th", attributes, column.label);
    const head = el(
      "th",
      attributes,
      button(column.label, () => this.#sortBy(column)),
    );
    this.#heads.set(column.id, head);
    return head;
  }

  #sortBy(column) {
    const same = this.#sort.id === column.id;
    // The first click on numbers shows the largest first.
    const direction = same ? -this.#sort.direction : column.number ? -1 : 1;
    this.#sort = { id: column.id, direction };
    this.#markSort();
    this.update(this.#rows);
  }

  #markSort() {
    for (const [id, head] of this.#heads) {
      const active = id === this.#sort.id;
      setAttribute(
        head,
        "aria-sort",
        active ? (this.#sort.direction > 0 ? "ascending" : "descending") : null,
      );
    }
  }

  #sorted() {
    if (!this.#sort) return this.#rows;
    const { id, direction } = this.#sort;
    const column = this.#columns.find((candidate) => candidate.id === id);
    const value = column.value ?? column.text;
    const keyed = this.#rows.map((row) => [value(row), this.#key(row), row]);
    keyed.sort(
      (left, right) => compare(left[0], right[0], direction) || collator.compare(left[1], right[1]),
    );
    return keyed.map(([, , row]) => row);
  }

  #create(key) {
    const cells = this.#columns.map((column) => cell(column.head, column.label));
    const entry = { element: el("tr", { role: "row" }, cells), cells, states: [] };
    this.#entries.set(key, entry);
    return entry;
  }

  #fill(entry, row) {
    this.#columns.forEach((column, index) => {
      const text = column.text(row);
      const tone = column.tone?.(row) ?? "";
      const state = `${tone}\n${text}`;
      if (entry.states[index] === state) return;
      entry.states[index] = state;
      const element = entry.cells[index];
      const names = [column.number ? "number" : "", column.className ?? "", tone];
      setAttribute(element, "class", names.filter(Boolean).join(" ") || null);
      if (column.render) column.render(element, row, text);
      else setText(element, text);
    });
  }
}

/** The roles keep the meaning of a table whose rows are stacked on a narrow screen. */
function cell(head, label) {
  return head
    ? el("th", { role: "rowheader", scope: "row", "data-label": label })
    : el("td", { role: "cell", "data-label": label });
}

/** A table that does not change. Columns are `[label, "number" or a class]` or labels. */
export function plainTable(caption, columns, rows, className = "") {
  const heads = columns.map((column) => (Array.isArray(column) ? column : [column, null]));
  const body = rows.map((row) =>
    el(
      "tr",
      { role: "row" },
      row.map((content, index) => {
        const element = cell(index === 0, heads[index][0]);
        setAttribute(element, "class", heads[index][1]);
        append(element, [content]);
        return element;
      }),
    ),
  );
  return el(
    "div",
    { class: "table" },
    el(
      "table",
      { role: "table", class: `stacks ${className}` },
      el("caption", { class: "unseen" }, caption),
      el(
        "thead",
        { role: "rowgroup" },
        el(
          "tr",
          { role: "row" },
          heads.map(([label, kind]) =>
            el("th", { role: "columnheader", scope: "col", class: kind }, label),
          ),
        ),
      ),
      el("tbody", { role: "rowgroup" }, body),
    ),
  );
}
