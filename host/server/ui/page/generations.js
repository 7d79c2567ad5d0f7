// Generations, the rollout, and the history of reloads.

import { badge, button, el, renew, setText, terms } from "./dom.js";
import { busy, keepFocus } from "./busy.js";
import { confirm } from "./dialog.js";
import { count, duration, moment, plural } from "./format.js";
import { Poll } from "./poll.js";
import {
  outcomeMeaning,
  outcomeName,
  outcomeTone,
  recordDetails,
  recordSummary,
  triggerText,
} from "./record.js";
import { rolloutPanel } from "./rollout.js";

const STATES = { live: "good", canary: "info", previous: "idle", retired: "idle" };
const HISTORY = 200;

export function generations(app, { signal }) {
  const { api, monitor } = app;
  const parts = {
    facts: el("div", {}),
    line: el("ol", { class: "generations", "aria-label": "Generations" }),
    rollout: el("section", { hidden: true, class: "card" }),
    problem: el("p", { class: "problem", hidden: true }),
    history: el("ol", { class: "history", "aria-label": "Reloads, newest first" }),
    kept: el("span", { class: "quiet" }),
    description: describe(),
  };
  const acts = actions(app, refresh);
  const history = new History(parts.history);
  let newest = null;

  const poll = new Poll(
    async (limit) => {
      const policy = await api.get("admin/policy", limit);
      const last = policy.last_reload?.at ?? null;
      if (last === null || last !== newest) {
        const { reloads } = await api.get(`admin/reloads?limit=${HISTORY}`, limit);
        history.show(reloads);
        setText(parts.kept, plural(reloads.length, "reload"));
        newest = last;
      }
      parts.problem.hidden = true;
      show(policy);
    },
    {
      signal,
      failed(error) {
        parts.problem.hidden = false;
        setText(parts.problem, error.message);
      },
    },
  );

  function refresh() {
    poll.now();
    monitor.refresh();
  }

  function show(policy) {
    const now = Date.now() / 1000 + monitor.clockOffset;
    renew(parts.facts, facts(policy));
    renew(
      parts.line,
      policy.generations.toSorted((a, b) => a.generation - b.generation).map(generationItem),
    );
    parts.rollout.hidden = !policy.rollout;
    if (policy.rollout)
      renew(parts.rollout, [
        el("h2", {}, "Rollout"),
        ...rolloutPanel(policy.rollout, now).filter(Boolean),
      ]);
    parts.description.show(policy.description);
    acts.show(policy);
  }

  return {
    title: "Generations",
    element: el(
      "div",
      {},
      parts.problem,
      acts.element,
      parts.line,
      parts.facts,
      parts.rollout,
      el("section", {}, el("h2", {}, "Reloads ", parts.kept), parts.history),
      parts.description.element,
    ),
  };
}

function facts(policy) {
  const { building } = policy;
  return [
    terms([
      ["Live", `generation ${policy.generation} since ${moment(policy.since)}`],
      ["Manifest", el("code", {}, policy.manifest)],
      [
        "Mode",
        policy.mode === "watch"
          ? "watch: a change of the files starts a reload"
          : `${policy.mode}: only an operator starts a reload`,
      ],
      ["Files", policy.stale ? "differ from what serves, see above" : "as served"],
      ["Building", building && buildText(building)],
      [
        "Model control",
        hasContent(policy.model_control)
          ? el("code", {}, JSON.stringify(policy.model_control))
          : null,
      ],
      [
        "Calls ended by force",
        policy.undrained?.length
          ? policy.undrained
              .map((one) => `${one.plugin}: ${plural(one.calls, "call")} at ${moment(one.at)}`)
              .join("; ")
          : null,
      ],
    ]),
  ];
}

function buildText({ phase, since, trigger, waiting }) {
  const others = waiting ? `; ${plural(waiting, "attempt")} waiting for it` : "";
  return `${phase} since ${moment(since)}, started by ${triggerText(trigger)}${others}`;
}

/** Whether anything in a value is not empty. */
function hasContent(value) {
  if (value === null || value === undefined || value === false) return false;
  return typeof value !== "object" || Object.values(value).some(hasContent);
}

function generationItem(one) {
  return el(
    "li",
    { class: one.state },
    el("span", { class: "ordinal" }, `Generation ${one.generation}`),
    badge(one.state, STATES[one.state] ?? "idle"),
    el("span", { class: "small" }, `${plural(one.requests, "request")} now`),
    el("code", { class: "digest" }, one.digest),
  );
}

/** The generation that a rollback restores. With a candidate beside it, that is the live one. */
function rollbackTarget(policy) {
  const find = (state) => policy.generations.find((one) => one.state === state)?.generation ?? null;
  const candidate = policy.rollout && policy.rollout.stage !== "watch";
  return candidate ? (find("live") ?? policy.generation) : find("previous");
}

function actions(app, refresh) {
  const { api } = app;
  let target = null;
  let candidate = null;
  const reload = button("Reload", () => act("Reload", "admin/reload"), { class: "primary" });
  const dryRun = button("Dry run", () => act("Dry run", "admin/reload?dry_run=true"));
  const back = button(
    "Roll back",
    async () => {
      const goal = target;
      const ends = candidate === null ? "" : ` This ends the rollout of generation ${candidate}.`;
      const yes = await confirm({
        title: `Roll back to generation ${goal}?`,
        text:
          `All requests go to the policy of generation ${goal} at once.${ends} ` +
          "The files on disk stay as they are, and are refused until they change or you reload.",
        action: "Roll back",
        danger: true,
      });
      if (yes) await act("Rollback", `admin/policy/rollback?generation=${goal}`);
    },
    { class: "danger" },
  );
  const promote = button(
    "Promote",
    async () => {
      const goal = candidate;
      const yes = await confirm({
        title: `Promote generation ${goal}?`,
        text: `All requests go to generation ${goal} at once. The watch follows.`,
        action: "Promote",
      });
      if (yes) await act("Promotion", `admin/policy/promote?generation=${goal}`);
    },
    { hidden: true },
  );
  const buttons = [reload, dryRun, back, promote];

  const act = (name, path) =>
    busy(buttons, async () => {
      app.announce("info", name, "The host is working on it.");
      const begun = Date.now();
      try {
        const record = await api.send("POST", path).catch((error) => {
          // Files that are refused are answered with 409 and a record.
          if (error.body?.outcome) return error.body;
          throw error;
        });
        const title = outcomeName(record.outcome);
        const live = `${outcomeMeaning(record.outcome)} Generation ${record.generation} is live.`;
        app.announce(outcomeTone(record.outcome), title, `${name}: ${live}`, recordDetails(record));
      } catch (error) {
        const after =
          Date.now() - begun > 5000 ? ` (after ${duration((Date.now() - begun) / 1000)})` : "";
        app.announce.error(`${name} failed${after}`, error);
      }
      refresh();
    });

  return {
    element: el(
      "p",
      { class: "actions", role: "group", "aria-label": "Act on the policy" },
      buttons,
    ),
    show(policy) {
      target = rollbackTarget(policy);
      candidate =
        policy.rollout && policy.rollout.stage !== "watch" ? policy.rollout.generation : null;
      setText(back, target === null ? "Roll back" : `Roll back to generation ${target}`);
      back.disabled = target === null;
      back.title = target === null ? "There is no previous generation" : "";
      setText(promote, `Promote generation ${candidate}`);
      keepFocus(buttons, () => {
        promote.hidden = candidate === null;
      });
    },
  };
}

/** The list of reloads. Items stay as they are, and open, when new ones come. */
class History {
  #list;
  #items = new Map();

  constructor(list) {
    this.#list = list;
  }

  show(records) {
    const known = this.#items;
    this.#items = new Map();
    records.forEach((record, index) => {
      const key = `${record.at} ${record.outcome} ${record.generation}`;
      const item = known.get(key) ?? el("li", {}, historyItem(record));
      known.delete(key);
      this.#items.set(key, item);
      if (this.#list.children[index] !== item)
        this.#list.insertBefore(item, this.#list.children[index] ?? null);
    });
    for (const item of known.values()) item.remove();
  }
}

function historyItem(record) {
  const details = el("details", {}, recordSummary(record));
  // The rest is created when it is first opened.
  details.addEventListener("toggle", () => details.append(recordDetails(record)), { once: true });
  return details;
}

/** What the live policy consists of. */
function describe() {
  const body = el("div", {});
  const element = el("details", { class: "wide" }, el("summary", {}, "What serves, as text"), body);
  let latest = {};
  let shownAs = null;
  const fill = () => {
    const text = JSON.stringify(latest);
    if (!element.open || shownAs === text) return;
    shownAs = text;
    body.replaceChildren(
      terms(
        Object.entries(latest).map(([thing, attributes]) => [
          thing,
          el(
            "span",
            { class: "mono small" },
            typeof attributes === "string"
              ? attributes
              : Object.entries(attributes ?? {}).map(([key, value]) =>
                  el("span", { class: "pair" }, `${key} = ${value} `),
                ),
          ),
        ]),
      ),
    );
  };
  element.addEventListener("toggle", fill);
  return {
    element,
    show(description) {
      latest = description ?? {};
      fill();
    },
  };
}
