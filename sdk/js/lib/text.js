// UTF-8. A plugin has no TextEncoder and no TextDecoder.

// Encodes a string as UTF-8. Half a surrogate pair throws a URIError.
export function encoded(text) {
  if (typeof text !== "string") throw new TypeError(`hostler.encoded() takes a string, and got ${typeof text}`);
  return Uint8Array.from(unescape(encodeURIComponent(text)), (letter) => letter.charCodeAt(0));
}

// Decodes UTF-8; throws a URIError if the bytes are not UTF-8.
export function decoded(data) {
  let escapes = "";
  for (const byte of data) escapes += "%" + byte.toString(16).padStart(2, "0");
  return decodeURIComponent(escapes);
}
