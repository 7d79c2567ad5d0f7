// A question before an act that is hard to undo.

import { button, el } from "./dom.js";

let number = 0;

/** Answers each open question with no. */
export function closeDialogs() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close("no");
}

/** Resolves to true if the operator confirms. Escape and Cancel are a no. */
export function confirm({ title, text, action, danger = false }) {
  number += 1;
  const [head, body] = [`dialog-title-${number}`, `dialog-text-${number}`];
  return new Promise((resolve) => {
    const finish = (answer) => {
      dialog.close(answer ? "yes" : "no");
    };
    const dialog = el(
      "dialog",
      { "aria-labelledby": head, "aria-describedby": body },
      el("h2", { id: head }, title),
      el("p", { id: body }, text),
      el(
        "p",
        { class: "actions end" },
        button("Cancel", () => finish(false), { autofocus: true }),
        button(action, () => finish(true), { class: danger ? "danger" : "primary" }),
      ),
    );
    dialog.addEventListener(
      "close",
      () => {
        dialog.remove();
        resolve(dialog.returnValue === "yes");
      },
      { once: true },
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
