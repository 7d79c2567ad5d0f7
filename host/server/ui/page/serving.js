// The executors, models and plugins that serve now.

import { EXECUTORS, modelColumns, modelKey, pluginColumns } from "./columns.js";
import { el, field, route, setText } from "./dom.js";
import { count, digits, duration } from "./format.js";
import { line } from "./sparkline.js";
import { Table } from "./table.js";

export function serving(app, { query, signal }) {
  const { monitor } = app;
  const filter = el("input", {
    type: "search",
    name: "filter",
    value: query.get("filter") ?? "",
    spellcheck: "false",
    autocomplete: "off",
  });
  const basis = el("p", { class: "quiet small" });
  const summary = summaryStrip();
  const executors = new Table({
    caption: "Executors",
    columns: EXECUTORS,
    key: (row) => row.name,
    sort: { id: "name", direction: 1 },
  });
  const models = new Table({
    caption: "Models",
    columns: modelColumns(monitor),
    key: modelKey,
    sort: { id: "model", direction: 1 },
    className: "models",
  });
  const plugins = new Table({
    caption: "Plugins",
    columns: pluginColumns(monitor),
    key: (row) => row.name,
    sort: { id: "name", direction: 1 },
  });
  const sections = [
    section(
      "Executors",
      executors,
      (status) => status.executors,
      (row) => [row.name, row.kind],
    ),
    section(
      "Models",
      models,
      (status) => status.models,
      (row) => [
        modelKey(row),
        row.executor,
        row.transformer,
        row.plugin,
        row.pipeline,
        row.reason,
        row.ready ? "ready" : "not ready",
      ],
    ),
    section(
      "Plugins",
      plugins,
      (status) => status.plugins,
      (row) => [row.name, row.role],
    ),
  ];

  const show = () => {
    const { status, samples } = monitor;
    const wanted = filter.value.trim().toLowerCase();
    for (const part of sections) part.show(status, wanted);
    summary.show(status, samples);
    setText(basis, basisText(status, samples.seconds));
  };
  filter.addEventListener("input", () => {
    app.remember(route("serving", null, { filter: filter.value }));
    show();
  });
  monitor.watch(() => monitor.failure || show(), signal);
  return {
    title: "Serving",
    element: el(
      "div",
      {},
      summary.element,
      el("div", { class: "toolbar", role: "search" }, field("Filter", filter), basis),
      sections.map((part) => part.element),
    ),
  };
}

/** What time the numbers cover. */
function basisText(status, seconds) {
  const start = `the start of the host, ${duration(status.at - status.started)} ago`;
  if (seconds === null) return `Rates, errors and percentiles cover the time since ${start}.`;
  return (
    `Rates, errors and percentiles cover the last ${duration(seconds)}; ` +
    `requests, calls and traps count from ${start}.`
  );
}

function section(title, table, rowsOf, words) {
  const number = el("span", { class: "quiet" });
  return {
    element: el("section", {}, el("h2", {}, title, " ", number), table.element),
    show(status, wanted) {
      const all = rowsOf(status);
      const rows = wanted
        ? all.filter((row) => words(row).some((word) => word?.toLowerCase().includes(wanted)))
        : all;
      setText(
        number,
        rows.length === all.length
          ? count(all.length)
          : `${count(rows.length)} of ${count(all.length)}`,
      );
      table.setEmpty(all.length ? "Nothing matches the filter." : "None");
      table.update(rows);
    },
  };
}

function summaryStrip() {
  const values = new Map();
  const tile = (id, label, extra = null) => {
    const value = el("dd", {});
    values.set(id, value);
    return el("div", {}, el("dt", {}, label), value, extra);
  };
  const chart = line();
  const element = el(
    "dl",
    { class: "tiles" },
    tile("rate", "Requests per second", chart.element),
    tile("errors", "Errors"),
    tile("models", "Models ready"),
    tile("inflight", "In flight"),
    tile("queued", "Queued"),
    tile("generation", "Generation"),
  );
  return {
    element,
    show(status, samples) {
      const numbers = status.models.map((model) => samples.model(model));
      const sum = (list) => list.reduce((total, value) => total + (value ?? 0), 0);
      const ready = status.models.filter((model) => model.ready).length;
      setText(values.get("rate"), digits(sum(numbers.map((number) => number.rate))));
      setText(values.get("errors"), count(sum(numbers.map((number) => number.errors))));
      setText(values.get("models"), `${count(ready)} of ${count(status.models.length)}`);
      setText(
        values.get("inflight"),
        count(sum(status.executors.map((executor) => executor.inflight))),
      );
      setText(
        values.get("queued"),
        count(sum(status.executors.map((executor) => executor.queue_length))),
      );
      setText(values.get("generation"), String(status.generation));
      values.get("models").className = ready < status.models.length ? "warn" : "";
      chart.show(samples.totals());
    },
  };
}
