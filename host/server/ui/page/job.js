// One job.

import { errorTerms } from "./announce.js";
import { busy, keepFocus } from "./busy.js";
import { confirm } from "./dialog.js";
import { badge, button, el, link, route, setText, terms } from "./dom.js";
import { count, duration, milliseconds, moment, NONE, plural, routeName } from "./format.js";
import { jsonBlock } from "./values.js";
import { runTime, stateBadge } from "./jobs.js";
import { Poll } from "./poll.js";
import { plainTable } from "./table.js";

const ENDED = new Set(["succeeded", "failed", "timeout", "cancelled"]);
const RETRIED = new Set(["failed", "timeout", "cancelled"]);
const OUTCOMES = {
  succeeded: "good",
  failed: "bad",
  timeout: "bad",
  cancelled: "warn",
  interrupted: "warn",
  running: "info",
  skipped: "idle",
  pending: "idle",
};

export function job(app, { name, signal }) {
  const path = `jobs/${encodeURIComponent(name)}`;
  const body = el("div", { class: "stack" });
  const problem = el("p", { class: "problem", hidden: true });
  let current = null;
  let shownAs = null;

  const poll = new Poll(
    async (limit) => {
      current = await app.api.get(path, limit);
      problem.hidden = true;
      show();
    },
    {
      // An ended job changes only by its webhook.
      interval: () => (ENDED.has(current?.state) ? 10_000 : 2000),
      signal,
      failed(error) {
        problem.hidden = false;
        setText(problem, error.message);
      },
    },
  );

  const act = async (title, method, suffix, done) =>
    busy(buttons, async () => {
      try {
        done(await app.api.send(method, path + suffix));
      } catch (error) {
        app.announce.error(title, error);
      }
      if (!signal.aborted) poll.now();
    });
  const cancel = button(
    "Cancel",
    () =>
      act("Not cancelled", "POST", "/cancel", (answer) => {
        current = answer?.state ? answer : current;
        app.announce("good", "Cancelled", `Job ${name} is cancelled.`);
      }),
    { hidden: true },
  );
  const retry = button(
    "Retry",
    () =>
      act("Not retried", "POST", "/retry", (answer) => {
        app.go(route("jobs", answer.job_id), () =>
          app.announce("good", "Submitted", `Job ${answer.job_id} repeats ${name}.`),
        );
      }),
    { hidden: true },
  );
  const remove = button(
    "Delete",
    async () => {
      const yes = await confirm({
        title: "Delete this job?",
        text: `Job ${name} and its result are removed for good.`,
        action: "Delete",
        danger: true,
      });
      if (yes)
        await act("Not deleted", "DELETE", "", () =>
          app.go(route("jobs"), () => app.announce("good", "Deleted", `Job ${name} is deleted.`)),
        );
    },
    { class: "danger", hidden: true },
  );
  const buttons = [cancel, retry, remove];

  function show() {
    const ended = ENDED.has(current.state);
    keepFocus(buttons, () => {
      remove.hidden = !ended;
      retry.hidden = !RETRIED.has(current.state);
      cancel.hidden = ended;
    });
    const now = Date.now() / 1000 + app.monitor.clockOffset;
    const text = JSON.stringify([current, ended ? null : runTime(current, now)]);
    if (text === shownAs) return;
    shownAs = text;
    body.replaceChildren(...details(current, now).filter(Boolean));
  }

  return {
    title: `Job ${name}`,
    element: el(
      "div",
      {},
      el("p", { class: "actions" }, link("All jobs", route("jobs")), buttons),
      problem,
      body,
    ),
  };
}

function details(job, now) {
  const waiting = job.refusals
    ? `${plural(job.refusals, "attempt")} not admitted; the last: ${refusal(job.last_refusal)}`
    : null;
  return [
    terms([
      ["State", stateBadge(job.state)],
      [
        "Model",
        link(
          routeName(job.model, job.version),
          route("predict", null, { model: routeName(job.model, job.version) }),
        ),
      ],
      ["Created", moment(job.created_at)],
      ["Started", job.started_at && moment(job.started_at)],
      ["Ended", job.ended_at && moment(job.ended_at)],
      ["Time", job.started_at && runTime(job, now)],
      ["Expires", job.expires_at && moment(job.expires_at)],
      ["Attempts", `${count(job.attempts)} of ${count(job.max_attempts)}`],
      ["Longest attempt", job.max_runtime_ms && milliseconds(job.max_runtime_ms)],
      ["Longest in total", job.max_total_runtime_ms && duration(job.max_total_runtime_ms / 1000)],
      ["Generation", job.generation && String(job.generation)],
      ["Request", job.request_id && el("code", {}, job.request_id)],
      [
        "Repeats",
        job.retry_of && link(job.retry_of, route("jobs", job.retry_of), { class: "mono" }),
      ],
      ["Interruptions", job.interruptions ? count(job.interruptions) : null],
      ["Refusals", waiting],
      ["Webhook", job.webhook && webhookText(job.webhook)],
    ]),
    job.error &&
      el(
        "section",
        { class: "card bad" },
        el("h2", {}, "Error"),
        el("p", { class: "text" }, job.error.message ?? ""),
        errorTerms(job.error),
      ),
    el("section", {}, el("h2", {}, "Attempts"), attempts(job.history ?? [])),
    job.steps?.length ? el("section", {}, el("h2", {}, "Steps"), steps(job.steps)) : null,
    "result" in job
      ? el("section", {}, el("h2", {}, "Result"), jsonBlock(job.result, "Result"))
      : null,
    job.result_content_type &&
      el(
        "section",
        {},
        el("h2", {}, "Result"),
        el("p", {}, `${count(job.result_bytes)} bytes of ${job.result_content_type}`),
      ),
  ];
}

function webhookText({ state, attempts, url, last_error }) {
  return `${state}, ${plural(attempts, "attempt")}, ${url}${last_error ? `: ${last_error}` : ""}`;
}

const refusal = (value) =>
  typeof value === "string" ? value : (value?.message ?? JSON.stringify(value));

function attempts(history) {
  if (!history.length) return el("p", { class: "empty" }, "No attempt has started.");
  return plainTable(
    "Attempts",
    [
      ["Attempt", "number"],
      "Outcome",
      "Started",
      "Ended",
      ["Generation", "number"],
      ["Error", "text"],
    ],
    history.map((one) => [
      count(one.attempt),
      outcomeBadge(one.outcome ?? "running"),
      moment(one.started_at),
      moment(one.ended_at),
      el(
        "span",
        { title: one.policy ?? "" },
        one.generation === null || one.generation === undefined ? NONE : String(one.generation),
      ),
      one.error ? refusal(one.error) : NONE,
    ]),
  );
}

const outcomeBadge = (outcome) => badge(outcome, OUTCOMES[outcome] ?? "idle");

function steps(list) {
  return plainTable(
    "Steps",
    [
      "Step",
      "State",
      ["Runs", "number"],
      ["Reused", "number"],
      ["Time", "number"],
      ["Waited", "number"],
    ],
    list.map((one) => [
      one.step,
      outcomeBadge(one.state),
      count(one.runs),
      count(one.reused),
      milliseconds(one.time_ms),
      milliseconds(one.queue_ms),
    ]),
  );
}
