// The log of a plugin, followed live.

import { button, el, field, route, setText } from "./dom.js";
import { clock, count, plural } from "./format.js";
import { Poll } from "./poll.js";

const LEVELS = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"];
const MOST = 1000;
const WAIT_MS = 10_000;

export function log(app, { name, signal }) {
  const plugin = el("select", { name: "plugin" });
  const level = el(
    "select",
    { name: "level" },
    LEVELS.map((one) => el("option", { value: one }, one === "TRACE" ? "All" : `${one} and above`)),
  );
  const words = el("input", {
    type: "search",
    name: "words",
    spellcheck: "false",
    autocomplete: "off",
  });
  const lines = el("ol", {
    class: "log mono",
    role: "log",
    "aria-live": "off",
    "aria-label": "Lines",
    tabindex: "0",
  });
  const state = el("span", { class: "quiet" });
  const problem = el("p", { class: "problem", hidden: true });
  const view = { lines, level, words, lost: 0 };
  let follow = null;
  let paused = false;

  const pause = button("Pause", () => {
    paused = !paused;
    setText(pause, paused ? "Resume" : "Pause");
    if (paused) stop();
    else start();
    showState();
  });
  const clearLines = button("Clear", () => {
    lines.replaceChildren();
    view.lost = 0;
    showState();
  });

  let after = null;
  const stop = () => follow?.abort();
  const start = () => {
    stop();
    follow = new AbortController();
    const chosen = plugin.value;
    if (!chosen) return;
    new Poll(
      async (limit) => {
        const query = new URLSearchParams({
          wait_ms: WAIT_MS,
          ...(after === null ? {} : { after }),
        });
        const answer = await app.api.get(
          `admin/plugins/${encodeURIComponent(chosen)}/log?${query}`,
          limit,
        );
        if (chosen !== plugin.value) return;
        problem.hidden = true;
        add(view, answer);
        after = answer.next ?? after;
        showState();
      },
      {
        interval: 200,
        signal: AbortSignal.any([signal, follow.signal]),
        failed(error) {
          problem.hidden = false;
          setText(problem, error.message);
          // A plugin that is loaded again counts its lines from the beginning.
          if (error.status === 404) after = null;
        },
      },
    );
  };

  function showState() {
    const shown = lines.querySelectorAll("li.line:not([hidden])").length;
    const all = lines.querySelectorAll("li.line").length;
    const parts = [
      paused ? "Paused" : "Live",
      shown === all ? plural(all, "line") : `${count(shown)} of ${plural(all, "line")}`,
    ];
    if (view.lost) parts.push(`${plural(view.lost, "line")} lost`);
    setText(state, `${parts.join(", ")}.`);
  }

  const refilter = () => {
    for (const line of lines.children) line.hidden = !matches(view, line);
    showState();
  };
  level.addEventListener("change", refilter);
  words.addEventListener("input", refilter);
  plugin.addEventListener("change", () => {
    app.remember(route("log", plugin.value));
    after = null;
    clearLines.click();
    start();
  });

  let started = null;
  let offered = null;
  app.monitor.watch(({ status }) => {
    if (!status) return;
    const loaded = status.plugins.map((one) => one.name);
    const followed = plugin.value || name || loaded[0];
    // The plugin whose lines are shown stays, also when it is not loaded any more.
    const options = !followed || loaded.includes(followed) ? loaded : [...loaded, followed];
    const labels = options.map((one) => (loaded.includes(one) ? one : `${one} (not loaded)`));
    if (JSON.stringify(labels) !== offered) {
      offered = JSON.stringify(labels);
      plugin.replaceChildren(
        ...options.map((one, index) =>
          el("option", { value: one, selected: one === followed }, labels[index]),
        ),
      );
    }
    // After a restart of the host its lines count from the beginning.
    if (started !== status.started && plugin.value) {
      if (started !== null) after = null;
      started = status.started;
      if (!paused) start();
    }
    if (!options.length) setText(state, "This host has no plugins.");
  }, signal);

  return {
    title: "Log",
    element: el(
      "div",
      {},
      el(
        "div",
        { class: "toolbar" },
        field("Plugin", plugin),
        field("Level", level),
        field("Text or request", words),
        el("p", { class: "actions" }, pause, clearLines, state),
      ),
      el(
        "p",
        { class: "quiet small" },
        `The host keeps the last 200 lines of each plugin. The page keeps the last ${count(MOST)}.`,
      ),
      problem,
      lines,
    ),
  };
}

function matches({ level, words }, line) {
  if (!line.classList.contains("line")) return true;
  const found = LEVELS.indexOf(line.dataset.level);
  if (found >= 0 && found < LEVELS.indexOf(level.value)) return false;
  const wanted = words.value.trim().toLowerCase();
  return !wanted || line.textContent.toLowerCase().includes(wanted);
}

/** Adds lines, removes the oldest, and stays at the end if the reader is there. */
function add(view, answer) {
  const { lines } = view;
  if (!answer.lines.length && !answer.lost) return;
  const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
  const items = answer.lines.map((line) => {
    const item = lineItem(line);
    item.hidden = !matches(view, item);
    return item;
  });
  if (answer.lost) {
    view.lost += answer.lost;
    items.unshift(el("li", { class: "gap" }, `${plural(answer.lost, "line")} lost`));
  }
  lines.append(...items);
  while (lines.childElementCount > MOST) lines.firstElementChild.remove();
  if (atEnd) lines.scrollTop = lines.scrollHeight;
}

function lineItem(line) {
  const level = String(line.level).toUpperCase();
  return el(
    "li",
    { class: `line ${level.toLowerCase()}`, "data-level": level },
    el("span", { class: "quiet" }, clock(line.at, true)),
    " ",
    el("span", { class: "level" }, level),
    " ",
    el(
      "span",
      { class: "text" },
      line.text,
      line.request && [
        " ",
        el("span", { class: "request quiet", title: "The request" }, line.request),
      ],
    ),
  );
}
