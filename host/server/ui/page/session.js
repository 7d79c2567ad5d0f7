// Signing in and out.

import { announce, clear } from "./announce.js";
import { button, el, field, setText } from "./dom.js";
import { busy } from "./busy.js";

/** The form for a key. `signedIn` is called when the host has accepted one. */
export function signInView(api, reason, signedIn) {
  const key = el("input", {
    type: "password",
    name: "key",
    required: true,
    autocomplete: "current-password",
    spellcheck: "false",
  });
  const submit = el("button", { type: "submit", class: "primary" }, "Sign in");
  const send = async (event) => {
    event.preventDefault();
    await busy([submit], async () => {
      try {
        await api.signIn(key.value.trim());
        clear();
        signedIn();
      } catch (error) {
        const why = error.status === 403 ? "This key does not have the verb admin" : error.message;
        announce("bad", "Not signed in", why);
        key.focus();
        key.select();
      }
    });
  };
  return {
    title: "Sign in",
    element: el(
      "form",
      { class: "card narrow", onsubmit: send },
      el(
        "p",
        {},
        reason ??
          "This host has access rules. Sign in with a key or a token that has the verb admin.",
      ),
      field("API key or token", key),
      el("p", { class: "actions" }, submit),
    ),
    focus: key,
  };
}

/** Shows who is signed in, and signs out. */
export function showCaller(api, signedOut) {
  const caller = document.getElementById("caller");
  const out = document.getElementById("sign-out");
  out.addEventListener("click", () =>
    busy([out], async () => {
      try {
        await api.signOut();
        signedOut();
      } catch (error) {
        announce.error("Not signed out", error);
      }
    }),
  );
  return () => {
    const session = api.session;
    setText(caller, session?.caller ?? "");
    setText(document.getElementById("version"), session?.version ?? "");
    // A client certificate says who asks without a session.
    out.hidden = !session?.caller || session.session === false;
  };
}
