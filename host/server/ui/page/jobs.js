// The list of jobs.

import { badge, el, field, link, route, setText } from "./dom.js";
import { count, duration, moment, NONE, routeName } from "./format.js";
import { Poll } from "./poll.js";
import { Table } from "./table.js";

const STATES = {
  pending: { tone: "idle" },
  running: { tone: "info" },
  succeeded: { tone: "good", ended: true },
  failed: { tone: "bad", ended: true, retried: true },
  timeout: { tone: "bad", ended: true, retried: true },
  cancelled: { tone: "warn", ended: true, retried: true },
};
/** States that only attempts and steps have. */
const OF_PARTS = { interrupted: { tone: "warn" }, skipped: { tone: "idle" } };
const PAGE = 50;

export const isEnded = (job) => STATES[job.state]?.ended ?? false;
export const canRetry = (job) => STATES[job.state]?.retried ?? false;

/** The state of a job, an attempt or a step. */
export const stateBadge = (state) =>
  badge(state, (STATES[state] ?? OF_PARTS[state])?.tone ?? "idle");

/** How long a job ran, or has run by now. */
export function runTime(job, now) {
  return job.started_at ? duration((job.ended_at ?? now) - job.started_at) : NONE;
}

const columns = (now) => [
  {
    id: "job",
    label: "Job",
    head: true,
    text: (row) => row.job_id,
    className: "mono",
    render: (cell, row) => cell.replaceChildren(link(row.job_id, route("jobs", row.job_id))),
  },
  {
    id: "state",
    label: "State",
    text: (row) => row.state,
    render: (cell, row) => cell.replaceChildren(stateBadge(row.state)),
  },
  { id: "model", label: "Model", text: (row) => routeName(row.model, row.version) },
  { id: "attempts", label: "Attempts", number: true, text: (row) => count(row.attempts) },
  { id: "created", label: "Created", number: true, text: (row) => moment(row.created_at) },
  { id: "ended", label: "Ended", number: true, text: (row) => moment(row.ended_at) },
  { id: "time", label: "Time", number: true, text: (row) => runTime(row, now()) },
  { id: "webhook", label: "Webhook", text: (row) => row.webhook_state ?? NONE },
];

export function jobs(app, { query, signal }) {
  const wanted = {
    state: query.get("state") ?? "",
    model: query.get("model") ?? "",
    after: query.get("after") ?? "",
  };
  const names = el("datalist", { id: "job-models" });
  const state = el(
    "select",
    { name: "state" },
    el("option", { value: "" }, "All"),
    Object.keys(STATES).map((name) =>
      el("option", { value: name, selected: name === wanted.state }, name),
    ),
  );
  const model = el("input", {
    type: "search",
    name: "model",
    list: "job-models",
    value: wanted.model,
    spellcheck: "false",
    autocomplete: "off",
  });
  const table = new Table({
    caption: "Jobs, newest first",
    columns: columns(() => Date.now() / 1000 + app.monitor.clockOffset),
    key: (row) => row.job_id,
    empty: "No jobs",
    className: "jobs",
  });
  const problem = el("p", { class: "problem", hidden: true });
  const pages = el("nav", { class: "actions", "aria-label": "Pages of jobs" });
  table.element.hidden = true;

  const poll = new Poll(
    async (limit) => {
      const asked = JSON.stringify(wanted);
      const entries = Object.entries({ limit: PAGE, ...wanted }).filter(
        ([, value]) => value !== "",
      );
      const answer = await app.api.get(`jobs?${new URLSearchParams(entries)}`, limit);
      if (JSON.stringify(wanted) !== asked) return;
      table.element.hidden = false;
      problem.hidden = true;
      table.setEmpty(
        answer.next ? "No job of this page matches. There are older ones." : "No jobs match.",
      );
      table.update(answer.jobs);
      showPages(pages, wanted, answer.next);
    },
    {
      signal,
      failed(error) {
        problem.hidden = false;
        setText(problem, error.message);
      },
    },
  );

  const change = () => {
    Object.assign(wanted, { state: state.value, model: model.value.trim(), after: "" });
    app.remember(route("jobs", null, wanted));
    poll.now();
  };
  state.addEventListener("change", change);
  model.addEventListener("input", change);
  app.monitor.watch(({ status }) => {
    const known = [...new Set(status?.models.map((one) => one.model) ?? [])];
    if (names.childElementCount !== known.length)
      names.replaceChildren(...known.map((name) => el("option", { value: name })));
  }, signal);
  return {
    title: "Jobs",
    element: el(
      "div",
      {},
      el(
        "div",
        { class: "toolbar", role: "search" },
        field("State", state),
        field("Model", model),
        names,
      ),
      problem,
      table.element,
      pages,
    ),
  };
}

function showPages(place, wanted, next) {
  const links = [
    wanted.after && link("Newest", route("jobs", null, { ...wanted, after: "" })),
    next && link("Older", route("jobs", null, { ...wanted, after: next }), { rel: "next" }),
  ].filter(Boolean);
  const same =
    links.length === place.childElementCount &&
    links.every((one, index) => one.isEqualNode(place.children[index]));
  if (!same) place.replaceChildren(...links);
  place.hidden = links.length === 0;
}
