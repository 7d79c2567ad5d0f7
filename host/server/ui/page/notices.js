// What every view shows: whether the host answers, stale files, and a rollout.

import { Unreachable } from "./api.js";
import { badge, button, el, link, route, setAttribute, setText } from "./dom.js";
import { clock, duration, plain } from "./format.js";

/** One line above all views. It is created when it is first shown. */
class Banner {
  #place;
  #element = null;
  #badge = null;
  #text = el("span", {});

  constructor(place) {
    this.#place = place;
  }

  show(tone, title, text, action) {
    if (!this.#element) {
      this.#badge = badge(title, tone);
      this.#element = el("p", {}, this.#badge, " ", this.#text, " ", action?.());
      this.#place.append(this.#element);
    }
    setAttribute(this.#element, "class", `banner ${tone}`);
    setAttribute(this.#badge, "class", `badge ${tone}`);
    setText(this.#badge, title);
    setText(this.#text, text);
  }

  hide() {
    this.#element?.remove();
    this.#element = null;
  }
}

export function showNotices(monitor, announce) {
  const place = document.getElementById("banners");
  const connection = document.getElementById("connection");
  const [lost, stale, access, rollout] = [0, 1, 2, 3].map(() => new Banner(place));
  const told = { lost: false, stale: false };
  const generations = () => link("Generations", route("generations"));

  const once = (key, active, text) => {
    if (active && !told[key]) announce.quietly(text);
    told[key] = active;
  };

  const show = () => {
    const { failure, status } = monitor;
    if (failure) {
      const seconds = Math.max(0, Math.ceil((failure.next - Date.now()) / 1000));
      const next = seconds > 0 ? `Next attempt in ${seconds} s.` : "Trying again now.";
      const since = clock(failure.since / 1000);
      const lasted = duration((Date.now() - failure.since) / 1000);
      const silent = failure.error instanceof Unreachable;
      const title = silent ? "No answer" : "Refused";
      const what = silent
        ? `The host has not answered since ${since}, for ${lasted}.`
        : `The host has refused since ${since}: ${failure.error.message}.`;
      lost.show("bad", title, `${what} What is shown is older. ${next}`, () =>
        button("Try now", () => monitor.refresh()),
      );
      setText(connection, "Not connected");
      connection.className = "bad";
    } else {
      lost.hide();
      setText(connection, status ? `Live, ${clock(status.at)}` : "");
      connection.className = "good";
    }
    const refuses = failure && !(failure.error instanceof Unreachable);
    once("lost", Boolean(failure), `The host ${refuses ? "refuses" : "does not answer"}.`);
    if (!status) return;
    const reason = status.stale_reason ?? "no reason is known";
    if (status.stale)
      stale.show("warn", "Stale", `The files differ from what serves: ${reason}`, generations);
    else stale.hide();
    once("stale", status.stale, `The files differ from what serves: ${reason}`);
    const refused = "The files of access rules cannot be used, so older rules apply.";
    if (status.access_stale)
      access.show("warn", "Access rules", `${refused} The log of the host says why.`);
    else access.hide();
    if (status.rollout) {
      const { stage, generation, share } = status.rollout;
      rollout.show(
        "info",
        "Rollout",
        `Generation ${generation}: stage ${stage}, ${plain(share)} % of the requests.`,
        generations,
      );
    } else {
      rollout.hide();
    }
  };

  monitor.watch(show);
  // Counts down to the next attempt.
  setInterval(() => monitor.failure && !document.hidden && show(), 1000);
  return show;
}
