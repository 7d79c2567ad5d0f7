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
    try {
      return await this.#request(method, path, { text: content, signal });
    } catch (error) {
      // A restarted host has another token. The request was refused before it changed anything.
      if (error.status !== 403 || !(await this.#tokenChanged())) throw error;
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
      const request = new XMLHttpRequest();
      request.open("GET", `api/${path}`);
      request.responseType = "document";
      request.onload = () => {
        if (request.status === 401) this.ended();
        const root = request.responseXML?.documentElement;
        if (request.status === 200 && root?.localName === "svg") resolve(root);
        else reject(new ApiError(request.status, null));
      };
      request.onerror = () => reject(new Unreachable("The host does not answer"));
      signal.addEventListener("abort", () => request.abort(), { once: true });
      request.send();
    });
  }

  async #tokenChanged() {
    const before = this.session?.csrf;
    await this.loadSession();
    return this.session.csrf !== before && this.session.csrf !== null;
  }

  async #request(method, path, { text, signal }) {
    const headers = { accept: "application/json" };
    if (method !== "GET" && this.session?.csrf) headers["x-hostler-csrf"] = this.session.csrf;
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
      if (error.name === "AbortError") throw error;
      throw new Unreachable(error.name === "TimeoutError" ? "No answer in time" : "No connection");
    }
    const body = read(answer);
    if (response.status === 401 && !(path === "session" && method === "POST")) this.ended();
    if (!response.ok) throw new ApiError(response.status, body);
    if (body === null && response.status !== 204) throw new ApiError(response.status, null);
    return body;
  }
}

function read(text) {
  try {
    return parse(text);
  } catch {
    return null;
  }
}
