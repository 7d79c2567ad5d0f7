// Globals that npm packages expect and the runtime lacks: `console`, which writes to the host's
// log, and the two classes for UTF-8. `hostler-build` evaluates this module before all others.

import { log } from "./host.js";
import { decoded, encoded } from "./text.js";

function shownAll(values) {
  const shown = (value) => {
    if (typeof value === "string") return value;
    if (value instanceof Error) return `${value}\n${value.stack ?? ""}`.trimEnd();
    try {
      return JSON.stringify(value) ?? String(value);
    } catch {
      return String(value);
    }
  };
  return values.map(shown).join(" ");
}

const printer =
  (level) =>
  (...values) =>
    log(shownAll(values), level);

globalThis.console ??= {
  log: printer("info"),
  info: printer("info"),
  warn: printer("warn"),
  error: printer("error"),
  debug: printer("debug"),
  trace: printer("debug"),
};

globalThis.TextEncoder ??= class TextEncoder {
  encoding = "utf-8";
  encode(text = "") {
    // Half a surrogate pair becomes the replacement character, as in browsers.
    return encoded(String(text).toWellFormed());
  }
};

globalThis.TextDecoder ??= class TextDecoder {
  encoding = "utf-8";
  constructor(label = "utf-8", { fatal = false } = {}) {
    if (!/^utf-?8$/i.test(label)) throw new RangeError(`TextDecoder: only utf-8 is supported, not ${label}`);
    this.fatal = fatal;
  }
  decode(data = new Uint8Array()) {
    const bytes = ArrayBuffer.isView(data)
      ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
      : new Uint8Array(data);
    const skip = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
    try {
      return decoded(bytes.subarray(skip));
    } catch {
      if (this.fatal) throw new TypeError("TextDecoder: the bytes are not UTF-8");
      return replaced(bytes.subarray(skip));
    }
  }
};

// Decodes with a replacement character for each byte that is not UTF-8.
function replaced(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at];
    const length = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    try {
      text += decoded(bytes.subarray(at, at + length));
      at += length;
    } catch {
      text += "\ufffd";
      at += 1;
    }
  }
  return text;
}
