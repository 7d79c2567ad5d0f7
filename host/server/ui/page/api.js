// Requests to the host. Paths are relative, so that a proxy may add a prefix.

import { parse } from "./json.js";

/** An answer of the host that is not a success. */
export class ApiError extends Error {
  constructor(status, body) {
    const error = body?.error;
    super(
      error?.message ??
        (typeof error === "string" ? error : `The host answered with status ${status}`),
    );
    this.status = status;
    this.kind = error?.kind ?? null;
    this.detail = typeof error === "object" ? error : null;
    this.body = body;
  }
}

/** No answer at all, or none in time. */
export class Unreachable extends Error {}

export class Api {
  constructor() {
    this.session = null;
    /** Called when the host no longer accepts the session. */
    this.ended = () => {};
  }

  get(path, signal) {
    return this.#request("GET", path, { signal });
  }

  /** Sends a change. `text` is a body of JSON as it is. */
  async send(method, path, { body, text, signal } = {}) {
    const content = text ?? (body === undefined ? undefined : JSON.stringify(body));
    const token = this.session?.csrf;
    try {
      return await this.#request(method, path, { text: content, signal });
    } catch (error) {
      // A restarted host has another token. The request was refused before it changed anything.
      if (error.status !== 403 || !(await this.#hasTokenAfter(token, signal))) throw error;
      return this.#request(method, path, { text: content, signal });
    }
  }

  async loadSession(signal) {
    this.session = await this.#request("GET", "session", { signal });
    return this.session;
  }

  async signIn(key) {
    this.session = await this.#request("POST", "session", { text: JSON.stringify({ key }) });
    return this.session;
  }

  async signOut() {
    await this.send("DELETE", "session");
    this.session = null;
  }

  /** Fetches an SVG document. The page's policy forbids to parse one from text. */
  svg(path, signal) {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const request = new XMLHttpRequest();
      request.open("GET", `api/${path}`);
      request.responseType = "document";
      request.onload = () => {
        if (request.status === 401) this.ended();
        const root = request.responseXML?.documentElement;
        if (request.status === 200 && root?.localName === "svg") resolve(root);
        else reject(new ApiError(request.status, null));
      };
      request.onerror = () => reject(withoutAnswer(null));
      request.onabort = () => reject(withoutAnswer(signal.reason));
      signal.addEventListener("abort", () => request.abort(), { once: true });
      request.send();
    });
  }

  /** Whether the session has another token than the one that was sent. */
  async #hasTokenAfter(sent, signal) {
    if (this.session?.csrf === sent) await this.loadSession(signal);
    const token = this.session?.csrf ?? null;
    return token !== null && token !== sent;
  }

  async #request(method, path, { text, signal }) {
    const headers = { accept: "application/json" };
    if (method !== "GET" && this.session?.csrf) headers["x-hostler-csrf"] = this.session.csrf;
    // The name in the record of a change, where no access rules say who asks.
    if (method === "POST" && path.startsWith("admin/")) headers["x-operator"] = "page";
    if (text !== undefined) headers["content-type"] = "application/json";
    let response, answer;
    try {
      response = await fetch(`api/${path}`, {
        method,
        headers,
        body: text,
        signal,
        cache: "no-store",
      });
      answer = await response.text();
    } catch (error) {
      throw withoutAnswer(error);
    }
    const body = read(answer);
    if (response.status === 401 && !(path === "session" && method === "POST")) this.ended();
    if (!response.ok) throw new ApiError(response.status, body);
    if (body === null && response.status !== 204) throw new ApiError(response.status, null);
    if (body !== null && typeof body === "object") sizes.set(body, answer.length);
    return body;
  }
}

const sizes = new WeakMap();

/** The number of characters of an answer. */
export const sizeOf = (answer) => sizes.get(answer) ?? 0;

/** What a request fails with that has no answer. */
function withoutAnswer(reason) {
  if (reason?.name === "AbortError") return reason;
  return new Unreachable(reason?.name === "TimeoutError" ? "No answer in time" : "No connection");
}

function read(text) {
  try {
    return parse(text);
  } catch {
    return null;
  }
}
