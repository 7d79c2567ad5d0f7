// The progress of a rollout, with the numbers of both sides.

import { badge, el } from "./dom.js";
import { count, duration, milliseconds, moment, percent, plain, plural } from "./format.js";
import { plainTable } from "./table.js";

const STAGES = {
  shadow: "copies of requests run on the new policy; clients get the answers of the old one",
  canary: "some clients get the new policy",
  watch: "all clients get the new policy, and the previous one is kept",
};

/** `now` is the time of the host, in seconds. */
export function rolloutPanel(rollout, now) {
  const left = rollout.next_at - now;
  const length = rollout.next_at - rollout.since;
  const passed = Math.min(Math.max(now - rollout.since, 0), length);
  const progress = el("progress", {
    max: 100,
    value: length > 0 ? ((passed / length) * 100).toFixed(1) : 100,
    "aria-label": "Time of the stage",
  });
  return [
    el(
      "p",
      {},
      badge(rollout.stage, "info"),
      ` Generation ${rollout.generation} has ${plain(rollout.share)} % of the requests: `,
      `${STAGES[rollout.stage] ?? ""}.`,
    ),
    el(
      "p",
      { class: "metered" },
      progress,
      el(
        "span",
        {},
        left > 0
          ? `${duration(left)} left in this stage`
          : "this stage ends with the next judgement",
      ),
      el("span", { class: "quiet" }, `since ${moment(rollout.since)}`),
    ),
    judgedTable(rollout.judged ?? {}),
    rollout.shadow && el("p", {}, shadowText(rollout.shadow)),
  ];
}

function shadowText({ requests, differences, faults, dropped }) {
  const found = `${plural(differences, "difference")}, ${plural(faults, "fault")}`;
  return `Shadow: ${plural(requests, "request")} compared, ${found}, ${count(dropped)} dropped.`;
}

const COLUMNS = [
  "Route",
  "Side",
  ["Requests", "number"],
  ["Faults", "number"],
  ["Fault rate", "number"],
  ["p95", "number"],
  ["Refused", "number"],
  ["Replayed", "number"],
  ["Confirmed", "number"],
];

function judgedTable(judged) {
  const rows = Object.entries(judged).flatMap(([route, numbers]) => [
    side(route, "new", numbers),
    side(route, "old", numbers.old ?? {}),
  ]);
  if (!rows.length) return el("p", { class: "empty" }, "No route has been judged yet.");
  return plainTable("Judged numbers of both sides", COLUMNS, rows, "judged");
}

function side(route, name, numbers) {
  return [
    route,
    name,
    count(numbers.requests),
    count(numbers.faults),
    percent(numbers.fault_rate),
    milliseconds(numbers.p95_ms),
    count(numbers.refused),
    count(numbers.replayed),
    count(numbers.confirmed),
  ];
}
