// Elements and links. Text from the host becomes text nodes and attribute values, never markup.

/** Creates an element. An attribute that starts with `on` is a listener. */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : visible(String(child)));
  }
}

/** Characters that hide or reorder what follows them. */
const DECEPTIVE =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** Shows control characters in the way of the host, as `\u{202e}`. */
export function visible(text) {
  return text.replace(DECEPTIVE, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
}

/** Creates an SVG element. */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  append(element, children);
  return element;
}

/** Sets the text of an element, and leaves the document alone if it is the same. */
export function setText(element, text) {
  const wanted = visible(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/**
 * Makes a part have these children. What looks the same stays as it is, and keeps the focus and a
 * selection of text. It is for children without listeners.
 */
export function renew(part, children) {
  const fresh = part.cloneNode(false);
  fresh.append(...children);
  renewChildren(part, fresh);
}

function renewChildren(part, fresh) {
  const all = [...fresh.childNodes];
  while (part.childNodes.length > all.length) part.lastChild.remove();
  all.forEach((wanted, index) => {
    const old = part.childNodes[index];
    if (!old) part.append(wanted);
    else if (old.isEqualNode(wanted)) return;
    else if (old instanceof Element && old.cloneNode(false).isEqualNode(wanted.cloneNode(false)))
      renewChildren(old, wanted);
    else old.replaceWith(wanted);
  });
}

export function button(label, onclick, attributes = {}) {
  return el("button", { type: "button", onclick, ...attributes }, label);
}

/** The address of a view, such as `#/pipelines/scoring`. */
export function route(view, name = null, query = {}) {
  const wanted = Object.entries(query).filter(
    ([, value]) => value !== null && value !== undefined && value !== "",
  );
  const search = new URLSearchParams(wanted).toString();
  const path = name === null ? view : `${view}/${encodeURIComponent(name)}`;
  return `#/${path}${search && `?${search}`}`;
}

export function link(label, href, attributes = {}) {
  return el("a", { href, ...attributes }, label);
}

/** A label above its control. */
export function field(label, control, attributes = {}) {
  return el("label", { class: "field", ...attributes }, el("span", {}, label), control);
}

export function badge(text, tone) {
  return el("span", { class: `badge ${tone}` }, text);
}

/** A list of terms; entries without a value are left out. */
export function terms(entries) {
  const shown = entries.filter(
    ([, value]) => value !== null && value !== undefined && value !== "",
  );
  return el(
    "dl",
    { class: "terms" },
    shown.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))),
  );
}

export function list(lines, attributes = {}) {
  return el(
    "ul",
    attributes,
    lines.map((line) => el("li", {}, line)),
  );
}
