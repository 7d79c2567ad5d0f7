// The columns of the tables of executors, models and plugins.

import { append, el, link, route, setText } from "./dom.js";
import { bytes, count, digits, NONE, percent, routeName } from "./format.js";
import { meter } from "./meter.js";

export const modelKey = (row) => routeName(row.model, row.version);

const of = (used, all) => `${count(used)} / ${count(all)}`;

/** The meter of each cell that has one. */
const meters = new WeakMap();

export const EXECUTORS = [
  { id: "name", label: "Executor", head: true, text: (row) => row.name },
  { id: "kind", label: "Kind", text: (row) => row.kind },
  {
    id: "busy",
    label: "Busy / workers",
    number: true,
    value: (row) => row.busy,
    text: (row) => of(row.busy, row.workers),
  },
  {
    id: "queue",
    label: "Queue / capacity",
    number: true,
    value: (row) => row.queue_length,
    text: (row) => of(row.queue_length, row.queue_capacity),
  },
  {
    id: "inflight",
    label: "In flight",
    number: true,
    value: (row) => row.inflight,
    text: (row) => count(row.inflight),
  },
  {
    id: "overdue",
    label: "Overdue",
    number: true,
    value: (row) => row.overdue,
    text: (row) => count(row.overdue),
    tone: (row) => (row.overdue ? "warn" : ""),
  },
  {
    id: "saturation",
    label: "Saturation",
    number: true,
    value: (row) => row.saturation,
    text: (row) => percent(row.saturation),
    render(cell, row, text) {
      if (row.saturation === null || row.saturation === undefined) {
        meters.delete(cell);
        setText(cell, text);
        return;
      }
      if (!meters.has(cell)) {
        const made = { bar: meter(`Saturation of ${row.name}`), value: el("span", {}) };
        meters.set(cell, made);
        cell.replaceChildren(el("div", { class: "metered" }, made.bar.element, made.value));
      }
      const { bar, value } = meters.get(cell);
      bar.show(row.saturation);
      setText(value, text);
    },
  },
];

/** The cells of a row read its numbers one after the other; they are computed once. */
function cached(compute) {
  let last = { row: null, result: null };
  return (row) => {
    if (last.row !== row) last = { row, result: compute(row) };
    return last.result;
  };
}

/** What a model consists of, as names with the addresses of their views. */
function partsOf(row) {
  const plugins = [...new Set([row.transformer, row.plugin])].filter(Boolean);
  return [
    ...plugins.map((name) => [name, route("log", name), "Log of this plugin"]),
    ...(row.pipeline
      ? [[row.pipeline, route("pipelines", row.pipeline), "Graph of this pipeline"]]
      : []),
    ...(row.streaming ? [["streaming"]] : []),
  ];
}

export function modelColumns(monitor) {
  const numbers = cached((row) => monitor.samples.model(row));
  const bounds = () => monitor.status.latency_bounds_ms;
  const latency = (value) => (value === Infinity ? `> ${count(bounds().at(-1))}` : digits(value));
  const errors = ({ errors, share }) =>
    errors ? `${count(errors)} (${percent(share)})` : count(errors);
  return [
    {
      id: "model",
      label: "Model",
      head: true,
      text: modelKey,
      render(cell, row) {
        cell.replaceChildren(
          link(row.model, route("predict", null, { model: modelKey(row) }), {
            title: "Predict with this model",
          }),
          el("span", { class: "quiet" }, `:${row.version}`),
        );
      },
    },
    { id: "executor", label: "Executor", text: (row) => row.executor },
    {
      id: "parts",
      label: "Plugin, pipeline",
      text: (row) =>
        partsOf(row)
          .map(([name]) => name)
          .join(", ") || NONE,
      className: "parts",
      render(cell, row) {
        const parts = partsOf(row).flatMap(([name, href, title], index) => [
          index > 0 && " ",
          href ? link(name, href, { title }) : el("span", { class: "quiet" }, name),
        ]);
        cell.replaceChildren();
        append(cell, parts.length ? parts : [el("span", { class: "quiet" }, NONE)]);
      },
    },
    {
      id: "ready",
      label: "State",
      value: (row) => (row.ready ? 1 : 0),
      className: "reason",
      text: (row) => (row.ready ? "ready" : `not ready: ${row.reason ?? "no reason is known"}`),
      tone: (row) => (row.ready ? "good" : "bad"),
    },
    {
      id: "requests",
      label: "Requests",
      number: true,
      value: (row) => row.requests,
      text: (row) => count(row.requests),
    },
    {
      id: "rate",
      label: "Requests/s",
      number: true,
      value: (row) => numbers(row).rate,
      text: (row) => digits(numbers(row).rate),
    },
    {
      id: "errors",
      label: "Errors",
      number: true,
      value: (row) => numbers(row).errors,
      text: (row) => errors(numbers(row)),
      tone: (row) => (numbers(row).errors ? "bad" : ""),
    },
    {
      id: "p50",
      label: "p50 ms",
      number: true,
      value: (row) => numbers(row).p50,
      text: (row) => latency(numbers(row).p50),
    },
    {
      id: "p99",
      label: "p99 ms",
      number: true,
      value: (row) => numbers(row).p99,
      text: (row) => latency(numbers(row).p99),
    },
  ];
}

export function pluginColumns(monitor) {
  const rate = cached((row) => monitor.samples.plugin(row));
  const memory = (id, label, read) => ({
    id,
    label,
    number: true,
    value: read,
    text: (row) => bytes(read(row)),
  });
  return [
    {
      id: "name",
      label: "Plugin",
      head: true,
      text: (row) => row.name,
      render: (cell, row) =>
        cell.replaceChildren(
          link(row.name, route("log", row.name), { title: "Log of this plugin" }),
        ),
    },
    { id: "role", label: "Role", text: (row) => row.role },
    {
      id: "instances",
      label: "Instances",
      number: true,
      value: (row) => row.instances,
      text: (row) => count(row.instances),
    },
    {
      id: "calls",
      label: "Calls",
      number: true,
      value: (row) => row.calls,
      text: (row) => count(row.calls),
    },
    { id: "rate", label: "Calls/s", number: true, value: rate, text: (row) => digits(rate(row)) },
    {
      id: "traps",
      label: "Traps",
      number: true,
      value: (row) => row.traps,
      text: (row) => count(row.traps),
      tone: (row) => (row.traps ? "bad" : ""),
    },
    memory("memory", "Memory", (row) => row.memory_bytes),
    memory("largest", "Largest", (row) => row.memory_largest_bytes),
    memory("held", "Held", (row) => row.held_bytes),
    memory("state", "State", (row) => row.state_bytes),
  ];
}
