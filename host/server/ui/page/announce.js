// The one live region of the page. It holds the result of the last act, or its error.

import { badge, button, el } from "./dom.js";

const place = document.getElementById("result");

/** Shows a result: a line, and below it whatever `details` has. */
export function announce(tone, title, text, details = null) {
  const close = button("Close", dismiss, { class: "close" });
  place.replaceChildren(
    el(
      "div",
      { class: `outcome ${tone}` },
      el("p", {}, badge(title, tone), " ", el("span", {}, text)),
      details,
      close,
    ),
  );
  place.scrollIntoView({ block: "nearest" });
}

/** Says something that the page shows elsewhere, unless a result is still shown. */
announce.quietly = (text) => {
  if (place.querySelector(".outcome")) return;
  place.replaceChildren(el("p", { class: "unseen" }, text));
};

announce.error = (title, error) => {
  if (error.name !== "AbortError") announce("bad", title, error.message, errorTerms(error));
};

function dismiss() {
  clear();
  document.getElementById("main").focus({ preventScroll: true });
}

export function clear() {
  place.replaceChildren();
}

const KEYS = ["kind", "field", "model", "plugin", "step", "state", "request_id"];

/** What an error of the host names. */
export function errorTerms(error) {
  const detail = error.detail ?? error;
  const known = KEYS.filter(
    (key) => detail[key] !== undefined && detail[key] !== null && detail[key] !== "",
  );
  if (!error.detail && !known.includes("kind")) return null;
  return el(
    "p",
    { class: "small" },
    known.map((key) =>
      el(
        "span",
        { class: "pair" },
        el("span", { class: "quiet" }, `${key.replace("_", " ")} `),
        el("code", {}, String(detail[key])),
        " ",
      ),
    ),
  );
}
