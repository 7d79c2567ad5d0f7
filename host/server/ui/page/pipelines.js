// The pipelines, and one of them with its graph.

import { badge, el, link, route, setText } from "./dom.js";
import { count, digits, milliseconds, NONE, plural } from "./format.js";
import { GraphView } from "./graph.js";
import { Poll } from "./poll.js";
import { Table } from "./table.js";

const LIST = [
  {
    id: "name",
    label: "Pipeline",
    head: true,
    text: (row) => row.name,
    render: (cell, row) => cell.replaceChildren(link(row.name, route("pipelines", row.name))),
  },
  {
    id: "steps",
    label: "Steps",
    number: true,
    value: (row) => row.steps,
    text: (row) => count(row.steps),
  },
  {
    id: "models",
    label: "Models",
    text: (row) =>
      row.models
        .map(({ model, ready, reason }) => `${model} ${ready ? "ready" : (reason ?? "not ready")}`)
        .join(", "),
    render(cell, row) {
      cell.replaceChildren(
        ...row.models.map(({ model, ready, reason }) =>
          el(
            "div",
            {},
            link(model, route("predict", null, { model })),
            " ",
            badge(ready ? "ready" : "not ready", ready ? "good" : "bad"),
            ready ? "" : ` ${reason ?? ""}`,
          ),
        ),
      );
    },
  },
];

export function pipelines(app, { signal }) {
  const table = new Table({
    caption: "Pipelines",
    columns: LIST,
    key: (row) => row.name,
    sort: { id: "name", direction: 1 },
    empty: "This host has no pipelines.",
  });
  const problem = el("p", { class: "problem", hidden: true });
  table.element.hidden = true;
  new Poll(
    async (limit) => {
      const answer = await app.api.get("admin/pipelines", limit);
      table.element.hidden = false;
      problem.hidden = true;
      table.update(Object.entries(answer.pipelines).map(([name, one]) => ({ name, ...one })));
    },
    { signal, failed: (error) => showProblem(problem, error) },
  );
  return { title: "Pipelines", element: el("div", {}, problem, table.element) };
}

function showProblem(problem, error) {
  problem.hidden = false;
  setText(problem, error.message);
}

const others = (runs) =>
  Object.entries(runs).filter(([outcome]) => outcome !== "ok" && outcome !== "error");

const STEPS = [
  { id: "step", label: "Step", head: true, text: (row) => row.step },
  {
    id: "model",
    label: "Model",
    text: (row) => row.model ?? NONE,
    render: (cell, row, text) =>
      cell.replaceChildren(
        row.model ? link(text, route("predict", null, { model: row.model })) : NONE,
      ),
  },
  {
    id: "ok",
    label: "OK",
    number: true,
    value: (row) => row.runs.ok ?? 0,
    text: (row) => count(row.runs.ok ?? 0),
  },
  {
    id: "error",
    label: "Errors",
    number: true,
    value: (row) => row.runs.error ?? 0,
    text: (row) => count(row.runs.error ?? 0),
    tone: (row) => (row.runs.error ? "bad" : ""),
  },
  {
    id: "others",
    label: "Others",
    number: true,
    value: (row) => others(row.runs).reduce((sum, [, number]) => sum + number, 0),
    text: (row) =>
      others(row.runs)
        .filter(([, number]) => number)
        .map(([outcome, number]) => `${count(number)} ${outcome}`)
        .join(", ") || NONE,
  },
  {
    id: "mean",
    label: "Mean ms",
    number: true,
    value: (row) => row.mean_ms,
    text: (row) => digits(row.mean_ms),
  },
  {
    id: "queue",
    label: "Waited s",
    number: true,
    value: (row) => row.queue_s,
    text: (row) => digits(row.queue_s),
  },
  {
    id: "inflight",
    label: "In flight",
    number: true,
    value: (row) => row.in_flight,
    text: (row) => count(row.in_flight),
  },
];

/** The text on a step of the graph. */
function stepText(step) {
  const parts = [`${count(step.runs.ok ?? 0)} ok`];
  if (step.runs.error) parts.push(plural(step.runs.error, "error"));
  // A step has little room; the table has all outcomes.
  if (!step.runs.ok && !step.runs.error && step.runs.skipped)
    parts[0] = `${count(step.runs.skipped)} skipped`;
  if (step.mean_ms !== null && step.mean_ms !== undefined) parts.push(milliseconds(step.mean_ms));
  return parts.join(", ");
}

export function pipeline(app, { name, signal }) {
  const path = `admin/pipelines/${encodeURIComponent(name)}`;
  const problem = el("p", { class: "problem", hidden: true });
  const table = new Table({
    caption: `Steps of ${name}`,
    columns: STEPS,
    key: (row) => row.step,
    empty: "No steps",
  });
  const graph = new GraphView(name, (step) => table.row(step));
  const source = el("pre", { class: "mono" });
  const text = el("dl", { class: "terms mono" });
  let drawn = null;
  new Poll(
    async (limit) => {
      const answer = await app.api.get(path, limit);
      // The graph changes with the policy alone.
      const shape = JSON.stringify([answer.mermaid, answer.graph]);
      if (shape !== drawn) {
        graph.draw(await app.api.svg(`${path}?graph=svg`, limit));
        setText(source, answer.mermaid ?? "");
        text.replaceChildren(
          ...Object.entries(answer.graph ?? {}).map(([key, value]) =>
            el("div", {}, el("dt", {}, key), el("dd", {}, String(value))),
          ),
        );
        drawn = shape;
      }
      problem.hidden = true;
      const steps = Object.entries(answer.steps).map(([step, numbers]) => ({
        step,
        runs: {},
        ...numbers,
      }));
      const places = new Map(steps.map(({ step }) => [step, graph.place(step)]));
      steps.sort((left, right) => {
        const [a, b] = [places.get(left.step), places.get(right.step)];
        return a[0] - b[0] || a[1] - b[1];
      });
      table.update(steps);
      for (const step of steps) graph.count(step.step, stepText(step), Boolean(step.runs.error));
    },
    { signal, failed: (error) => showProblem(problem, error) },
  );

  const own = el("p", { class: "actions" }, link("All pipelines", route("pipelines")));
  app.monitor.watch(({ status }) => {
    const models = status?.models.filter((model) => model.pipeline === name) ?? [];
    const links = models.map((model) =>
      link(
        `Predict with ${model.model}:${model.version}`,
        route("predict", null, { model: `${model.model}:${model.version}` }),
      ),
    );
    if (own.childElementCount !== links.length + 1) own.replaceChildren(own.firstChild, ...links);
  }, signal);
  return {
    title: `Pipeline ${name}`,
    element: el(
      "div",
      {},
      own,
      problem,
      el("section", {}, el("h2", {}, "Graph"), graph.element),
      el(
        "section",
        {},
        el("h2", {}, "Steps"),
        el(
          "p",
          { class: "quiet small" },
          "Numbers count from the start of the host. The mean excludes waits.",
        ),
        table.element,
      ),
      el("details", { class: "wide" }, el("summary", {}, "Graph as text"), text),
      el("details", { class: "wide" }, el("summary", {}, "Mermaid source"), source),
    ),
  };
}
