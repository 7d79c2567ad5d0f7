// One job.

import { errorTerms } from "./announce.js";
import { sizeOf } from "./api.js";
import { busy, keepFocus } from "./busy.js";
import { confirm } from "./dialog.js";
import { button, el, link, renew, route, setText, terms } from "./dom.js";
import { bytes, count, duration, milliseconds, moment, NONE, plural, routeName } from "./format.js";
import { jsonBlock } from "./values.js";
import { canRetry, isEnded, runTime, stateBadge } from "./jobs.js";
import { Poll } from "./poll.js";
import { plainTable } from "./table.js";

/** The longest answer whose result is shown, in characters. */
const LONGEST = 1_000_000;

export function job(app, { name, signal }) {
  const path = `jobs/${encodeURIComponent(name)}`;
  const body = el("div", { class: "stack" });
  const result = el("section", { hidden: true });
  const problem = el("p", { class: "problem", hidden: true });
  let current = null;

  const poll = new Poll(
    async (limit) => {
      current = await app.api.get(path, limit);
      problem.hidden = true;
      show();
    },
    {
      interval: () => pauseOf(current),
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
    const ended = isEnded(current);
    keepFocus(buttons, () => {
      remove.hidden = !ended;
      retry.hidden = !canRetry(current);
      cancel.hidden = ended;
    });
    const now = Date.now() / 1000 + app.monitor.clockOffset;
    renew(body, details(current, now).filter(Boolean));
    // A result stays as it is.
    if (result.hidden) result.append(...resultOf(current));
    result.hidden = !result.hasChildNodes();
  }

  return {
    title: `Job ${name}`,
    element: el(
      "div",
      {},
      el("p", { class: "actions" }, link("All jobs", route("jobs")), buttons),
      problem,
      body,
      result,
    ),
  };
}

/** The time until a job is asked for again. An ended job changes only by its webhook. */
function pauseOf(job) {
  if (!job || !isEnded(job)) return 2000;
  return job.webhook?.state === "pending" ? 10_000 : null;
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
  ];
}

function resultOf(job) {
  const head = el("h2", {}, "Result");
  if (job.result_content_type)
    return [head, el("p", {}, `${count(job.result_bytes)} bytes of ${job.result_content_type}`)];
  if (!("result" in job)) return [];
  const size = sizeOf(job);
  if (size <= LONGEST) return [head, jsonBlock(job.result, "Result")];
  const where = el("code", {}, `GET /jobs/${job.job_id}`);
  return [head, el("p", {}, `About ${bytes(size)} of JSON, too long to show. `, where, " has it.")];
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
      stateBadge(one.outcome ?? "running"),
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
      stateBadge(one.state),
      count(one.runs),
      count(one.reused),
      milliseconds(one.time_ms),
      milliseconds(one.queue_ms),
    ]),
  );
}
