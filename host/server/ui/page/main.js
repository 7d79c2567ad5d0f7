// Routes between the views.

import { announce, clear } from "./announce.js";
import { Api } from "./api.js";
import { closeDialogs } from "./dialog.js";
import { el } from "./dom.js";
import { generations } from "./generations.js";
import { job } from "./job.js";
import { jobs } from "./jobs.js";
import { log } from "./log.js";
import { Monitor } from "./monitor.js";
import { showNotices } from "./notices.js";
import { pipeline, pipelines } from "./pipelines.js";
import { predict } from "./predict.js";
import { serving } from "./serving.js";
import { showCaller, signInView } from "./session.js";

const api = new Api();
const monitor = new Monitor(api);
const view = document.getElementById("view");
const navigation = document.querySelector("header nav");

const VIEWS = {
  serving,
  generations,
  pipelines: (app, at) => (at.name === null ? pipelines(app, at) : pipeline(app, at)),
  jobs: (app, at) => (at.name === null ? jobs(app, at) : job(app, at)),
  predict,
  log,
};

let visit = new AbortController();
let afterwards = null;

const app = {
  api,
  monitor,
  announce,
  /** Shows another view, and there says what has happened. */
  go(hash, say = null) {
    afterwards = say;
    if (location.hash === hash) show(true);
    else location.hash = hash;
  },
  /** Keeps the state of the present view in the address. */
  remember(hash) {
    history.replaceState(null, "", hash);
  },
};

function readRoute() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [first, ...rest] = path.split("/");
  let name = rest.length ? rest.join("/") : null;
  try {
    name = name === null || name === "" ? null : decodeURIComponent(name);
  } catch {
    // The name stays as it is.
  }
  return {
    view: Object.hasOwn(VIEWS, first) ? first : "serving",
    name,
    query: new URLSearchParams(query),
  };
}

function place({ title, element, focus }, moveFocus) {
  const heading = el("h1", { tabindex: "-1" }, title);
  document.title = `${title} – Hostler`;
  view.replaceChildren(heading, element);
  if (focus) focus.focus();
  else if (moveFocus) heading.focus({ preventScroll: true });
  if (moveFocus) scrollTo(0, 0);
}

function show(moveFocus) {
  closeDialogs();
  visit.abort();
  visit = new AbortController();
  clear();
  const at = readRoute();
  for (const link of navigation.querySelectorAll("a")) {
    if (link.getAttribute("href") === `#/${at.view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  place(VIEWS[at.view](app, { ...at, signal: visit.signal }), moveFocus);
  afterwards?.();
  afterwards = null;
}

const showSession = showCaller(api, () => signIn(null));
const showBanners = showNotices(monitor, announce);
let shown = false;
let signedIn = false;

/** Begins to poll, and shows the view once the host has answered. */
function start() {
  shown = false;
  monitor.start(() => signIn(null));
}

function signIn(reason) {
  closeDialogs();
  visit.abort();
  monitor.stop();
  monitor.status = null;
  shown = false;
  document.body.classList.add("signed-out");
  document.getElementById("banners").hidden = true;
  const connection = document.getElementById("connection");
  connection.textContent = "";
  connection.className = "";
  showSession();
  clear();
  place(signInView(api, reason, start), true);
}

api.ended = () => {
  api.session = { ...api.session, required: true, caller: null };
  if (document.body.classList.contains("signed-out")) return;
  signIn(signedIn ? "Your session has ended. Sign in again." : null);
};

let started = null;
monitor.watch(() => {
  showSession();
  const { status } = monitor;
  if (!status) return;
  // A restarted host has other sessions.
  if (started !== null && started !== status.started) api.loadSession().catch(() => {});
  started = status.started;
  signedIn = Boolean(api.session?.caller);
  if (shown) return;
  const wasSignedOut = document.body.classList.contains("signed-out");
  document.body.classList.remove("signed-out");
  document.getElementById("banners").hidden = false;
  shown = true;
  showBanners();
  show(wasSignedOut);
});

addEventListener("hashchange", () => {
  if (location.hash.startsWith("#/") && shown) show(true);
});

// The address of this link is no view.
document.querySelector("a.skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});

place({ title: "Hostler", element: el("p", { class: "empty" }, "Waiting for the host.") }, false);
start();
