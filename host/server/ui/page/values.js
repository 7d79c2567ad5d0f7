// Blocks of JSON, bytes and tensors.

import { button, el, visible } from "./dom.js";
import { count, tensorType } from "./format.js";
import { write } from "./json.js";

const SHOWN = 100_000;

/** A value as text. Only its first part is shown if it is long. */
export function jsonBlock(value, label) {
  const text = write(value);
  const block = el(
    "pre",
    { class: "mono block", tabindex: "0", role: "region", "aria-label": label },
    text.slice(0, SHOWN),
  );
  if (text.length <= SHOWN) return block;
  const note = el(
    "p",
    { class: "quiet small" },
    `The first ${count(SHOWN)} of ${count(text.length)} characters. `,
    button("Show all", () => {
      block.textContent = visible(text);
      note.remove();
    }),
  );
  return el("div", {}, block, note);
}

/** Bytes that the host sent as base64: their size, and their beginning if they are text. */
export function bytesBlock(base64, contentType) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const text = /^text\/|json/.test(contentType ?? "") ? new TextDecoder().decode(bytes) : null;
  return el(
    "div",
    {},
    el("p", {}, `${count(bytes.length)} bytes of ${contentType}`),
    text === null ? null : el("pre", { class: "mono block" }, text.slice(0, SHOWN)),
  );
}

/** Tensors with the beginning of their values. */
export function tensorList(tensors) {
  if (!tensors?.length) return el("span", { class: "quiet" }, "none");
  return el(
    "ul",
    { class: "tensors" },
    tensors.map((tensor) =>
      el(
        "li",
        {},
        el("span", { class: "name" }, tensor.name),
        " ",
        el("span", { class: "quiet" }, tensorType(tensor)),
        tensor.values === undefined ? null : el("code", {}, tensor.values),
      ),
    ),
  );
}
