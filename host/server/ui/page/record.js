// The record of a reload.

import { badge, el, list } from "./dom.js";
import { count, milliseconds, moment, plural } from "./format.js";

const TONES = {
  applied: "good",
  would_apply: "good",
  rolling_out: "info",
  unchanged: "idle",
  rejected: "bad",
  pending: "warn",
  refused: "bad",
  rolled_back: "warn",
  fallback: "warn",
};

const MEANINGS = {
  applied: "The new policy is live.",
  rolling_out: "The new policy is loaded and takes over in stages.",
  unchanged: "The files describe the policy that is already live.",
  would_apply: "A reload would make these files live. Nothing has changed.",
  rejected: "The files have a fault. The policy before serves.",
  pending: "A pinned file does not have its digest. The policy before serves.",
  refused: "These files were rejected or rolled back before. The policy before serves.",
  rolled_back: "The previous policy is live again.",
  fallback: "The files are bad. The last good copy serves.",
};

export const outcomeTone = (outcome) => TONES[outcome] ?? "idle";
export const outcomeName = (outcome) => String(outcome).replaceAll("_", " ");
export const outcomeMeaning = (outcome) => MEANINGS[outcome] ?? "";

/** Who or what caused the reload. */
export function triggerText(trigger) {
  if (typeof trigger === "string") return trigger;
  if (trigger?.admin !== undefined) return `operator ${trigger.admin}`;
  if (trigger?.model_control !== undefined) return `model control: ${trigger.model_control}`;
  return JSON.stringify(trigger ?? null);
}

/** What a record says in a few words: its first error, or how much it changed. */
function gist(record) {
  const more = (record.errors?.length ?? 0) - 1;
  if (more > 0) return `${record.errors[0]} (and ${more} more)`;
  if (more === 0) return record.errors[0];
  return record.changes?.length ? plural(record.changes.length, "change") : "";
}

/** The line of a record in the history. */
export function recordSummary(record) {
  const total = record.phases_ms?.total;
  return el(
    "summary",
    {},
    badge(outcomeName(record.outcome), outcomeTone(record.outcome)),
    el("span", { class: "when" }, moment(record.at)),
    el("span", { class: "generation" }, `generation ${count(record.generation)}`),
    el("span", { class: "trigger quiet" }, triggerText(record.trigger)),
    el("span", { class: "total number quiet" }, total === undefined ? "" : milliseconds(total)),
    el("span", { class: "gist" }, gist(record)),
  );
}

function lines(title, texts) {
  if (!texts?.length) return null;
  return el(
    "div",
    { class: `lines ${title.toLowerCase()}` },
    el("h4", {}, `${title} (${texts.length})`),
    list(texts, { class: "mono" }),
  );
}

const PHASES = ["plan", "plugins", "models", "checks", "total"];

function phases(record) {
  const times = record.phases_ms ?? {};
  const names = [
    ...PHASES.filter((name) => name in times),
    ...Object.keys(times).filter((name) => !PHASES.includes(name)),
  ];
  return names.length
    ? el(
        "p",
        { class: "small phases" },
        names.map((name) =>
          el(
            "span",
            { class: "pair" },
            el("span", { class: "quiet" }, `${name} `),
            milliseconds(times[name]),
            " ",
          ),
        ),
      )
    : null;
}

/** Everything in a record but its summary. */
export function recordDetails(record) {
  const due = record.retry_in_ms ?? null;
  const next = due === null ? "" : `; the next is due ${milliseconds(due)} after this one`;
  const retry = record.failures
    ? `${plural(record.failures, "attempt")} failed in a row${next}.`
    : null;
  return el(
    "div",
    { class: "record" },
    phases(record),
    record.digest &&
      el(
        "p",
        { class: "small" },
        el("span", { class: "quiet" }, "digest "),
        el("code", {}, record.digest),
      ),
    retry && el("p", {}, retry),
    lines("Errors", record.errors),
    lines("Warnings", record.warnings),
    lines("Changes", record.changes),
  );
}
