// The state of the host, polled for all views.

import { Samples } from "./latency.js";
import { Poll } from "./poll.js";

export class Monitor {
  #api;
  #listeners = new Set();
  #stop = null;
  #poll = null;

  constructor(api) {
    this.#api = api;
    this.samples = new Samples();
    this.status = null;
    /** Set while the host does not answer: `since` and `next` in ms, and the `error`. */
    this.failure = null;
  }

  /** Begins to poll. `signIn` is called instead if the host wants to know who asks. */
  start(signIn) {
    this.stop();
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    this.#poll = new Poll((limit) => this.#ask(limit, signIn), {
      signal,
      failed: (error, pause) => this.#fail(error, pause),
    });
  }

  stop() {
    this.#stop?.abort();
    this.failure = null;
  }

  /** Asks now, for example after a change. */
  refresh() {
    this.#poll?.now();
  }

  /** Calls `listener` after each answer and each failure, until `signal` aborts. */
  watch(listener, signal) {
    this.#listeners.add(listener);
    signal?.addEventListener("abort", () => this.#listeners.delete(listener), { once: true });
    if (this.status) this.#call(listener);
  }

  /** The difference between the clock of the host and this one, in seconds. */
  get clockOffset() {
    return this.status ? this.status.at - this.receivedAt : 0;
  }

  async #ask(limit, signIn) {
    const session = this.#api.session ?? (await this.#api.loadSession(limit));
    if (session.required && !session.caller) {
      this.stop();
      signIn();
      return;
    }
    const status = await this.#api.get("admin/status", limit);
    this.status = status;
    this.receivedAt = Date.now() / 1000;
    this.failure = null;
    this.samples.add(status);
    this.#tell();
  }

  #fail(error, pause) {
    this.failure = { since: this.failure?.since ?? Date.now(), next: Date.now() + pause, error };
    this.#tell();
  }

  #tell() {
    for (const listener of this.#listeners) this.#call(listener);
  }

  /** A faulty view must not look like a host that refuses. */
  #call(listener) {
    try {
      listener(this);
    } catch (error) {
      reportError(error);
    }
  }
}
