// The graph of a pipeline, drawn by the host, with live texts on its steps.

import { el, setText } from "./dom.js";

const ELEMENTS = new Set([
  "svg",
  "g",
  "defs",
  "marker",
  "title",
  "desc",
  "rect",
  "path",
  "line",
  "polyline",
  "polygon",
  "circle",
  "ellipse",
  "text",
  "tspan",
]);

/** Removes what a drawing does not need, such as scripts, links and styles. */
function clean(root) {
  for (const element of [root, ...root.querySelectorAll("*")]) {
    if (!ELEMENTS.has(element.localName)) {
      element.remove();
      continue;
    }
    for (const { name } of [...element.attributes]) {
      if (/^on|href$|^style$/i.test(name)) element.removeAttribute(name);
    }
  }
  return root;
}

/** Narrows a text that is wider than its box. */
function fit(text, box) {
  text.removeAttribute("textLength");
  const left = text.getBBox().x - (box?.getBBox().x ?? 0);
  const room = box ? box.getBBox().width - 2 * Math.max(left, 4) : Infinity;
  if (text.getAttribute("text-anchor") === "middle" || text.getComputedTextLength() <= room) return;
  text.setAttribute("lengthAdjust", "spacingAndGlyphs");
  text.setAttribute("textLength", String(room));
}

export class GraphView {
  #steps = new Map();
  #row;

  /** `row` finds the row of the table that has the same step. */
  constructor(name, row) {
    this.#row = row;
    this.element = el("div", {
      class: "scroller",
      tabindex: "0",
      role: "group",
      "aria-label": `Graph of ${name}`,
    });
  }

  draw(root) {
    const drawing = document.importNode(clean(root), true);
    this.#steps = new Map();
    const [, , width] = (drawing.getAttribute("viewBox") ?? "").split(/[\s,]+/).map(Number);
    if (width > 0) {
      drawing.setAttribute("width", String(width));
      // A graph that is a little too wide shrinks; a wider one scrolls.
      drawing.style.minWidth = `${Math.round(width * 0.75)}px`;
    }
    drawing.removeAttribute("height");
    for (const step of drawing.querySelectorAll("g.step")) this.#addStep(step);
    this.element.replaceChildren(drawing);
  }

  /** The place of a step in the drawing, from left to right and from top to bottom. */
  place(name) {
    const box = this.#steps.get(name)?.querySelector(".box")?.getBBox();
    return box ? [box.x, box.y] : [Infinity, 0];
  }

  /** Writes on a step. A step that has failed is marked. */
  count(name, text, failed) {
    const step = this.#steps.get(name);
    if (!step) return;
    const place = step.querySelector("text.count");
    if (place && place.textContent !== text) {
      setText(place, text);
      fit(place, step.querySelector(".box"));
    }
    step.classList.toggle("failed", failed);
    step.setAttribute("aria-label", `${name}: ${text}`);
  }

  #addStep(step) {
    const name = step.getAttribute("data-step");
    this.#steps.set(name, step);
    step.setAttribute("role", "img");
    const mark = (active) => {
      step.classList.toggle("marked", active);
      this.#row(name)?.classList.toggle("marked", active);
    };
    for (const type of ["focus", "pointerenter"]) step.addEventListener(type, () => mark(true));
    for (const type of ["blur", "pointerleave"]) step.addEventListener(type, () => mark(false));
  }
}
