// Rates and percentiles of the last minute, from the differences between answers of the host.

import { routeName } from "./format.js";

const WINDOW = 60;

/**
 * The value below which a share of the counted values lies, interpolated within its bucket.
 * `counts` is cumulative, with one entry more than `bounds`. Infinity if it is above the bounds.
 */
export function percentile(bounds, counts, share) {
  const total = counts.at(-1);
  if (!total) return null;
  const rank = total * share;
  const bucket = counts.findIndex((count) => count >= rank);
  if (bucket < 0 || bucket >= bounds.length) return Infinity;
  const low = bucket === 0 ? 0 : bounds[bucket - 1];
  const before = bucket === 0 ? 0 : counts[bucket - 1];
  const inside = counts[bucket] - before;
  return inside === 0 ? bounds[bucket] : low + ((bounds[bucket] - low) * (rank - before)) / inside;
}

const keyOf = (model) => routeName(model.model, model.version);

export class Samples {
  #samples = [];

  add(status) {
    const last = this.#samples.at(-1)?.status;
    const restarted = last && (last.started !== status.started || last.at > status.at);
    if (restarted || last?.latency_bounds_ms.length !== status.latency_bounds_ms.length)
      this.#samples = [];
    const models = new Map(status.models.map((model) => [keyOf(model), model]));
    const plugins = new Map(status.plugins.map((plugin) => [plugin.name, plugin]));
    this.#samples.push({ status, models, plugins });
    const oldest = status.at - WINDOW - 1;
    while (this.#samples.length > 1 && this.#samples[0].status.at < oldest) this.#samples.shift();
  }

  /** The seconds that the values cover, or null if they count from the start of the host. */
  get seconds() {
    if (this.#samples.length < 2) return null;
    return this.#samples.at(-1).status.at - this.#samples[0].status.at;
  }

  /** Requests per second, errors, and percentiles of a model. */
  model(model) {
    const status = this.#samples.at(-1).status;
    const bounds = status.latency_bounds_ms;
    // Requests and errors count since the model was loaded, latencies since the host started.
    const counted = this.#past(
      "models",
      keyOf(model),
      (old, now) => old.requests <= now.requests && old.errors <= now.errors,
    );
    const timed = this.#past("models", keyOf(model), (old, now) =>
      old.latency.counts.every((count, index) => count <= now.latency.counts[index]),
    );
    const numbers = { rate: null, errors: null, share: null, p50: null, p99: null };
    const first = this.#samples.length === 1;
    if (first || counted) {
      const seconds = status.at - (counted?.at ?? status.started);
      const requests = model.requests - (counted?.entry.requests ?? 0);
      numbers.errors = model.errors - (counted?.entry.errors ?? 0);
      if (seconds > 0) numbers.rate = requests / seconds;
      if (requests > 0) numbers.share = numbers.errors / requests;
    }
    if (first || timed) {
      const old = timed?.entry.latency.counts;
      const inWindow = model.latency.counts.map((count, index) => count - (old?.[index] ?? 0));
      // A model without requests in that time shows what it had since the start of the host.
      const counts = inWindow.at(-1) > 0 ? inWindow : model.latency.counts;
      numbers.p50 = percentile(bounds, counts, 0.5);
      numbers.p99 = percentile(bounds, counts, 0.99);
    }
    return numbers;
  }

  /** Calls per second of a plugin. */
  plugin(plugin) {
    const status = this.#samples.at(-1).status;
    const past = this.#past("plugins", plugin.name, (old, now) => old.calls <= now.calls);
    if (this.#samples.length > 1 && past === null) return null;
    const seconds = past ? status.at - past.at : status.at - status.started;
    return seconds > 0 ? (plugin.calls - (past?.entry.calls ?? 0)) / seconds : null;
  }

  /** Requests per second of all models between each two answers, oldest first. */
  totals() {
    const points = [];
    for (let index = 1; index < this.#samples.length; index += 1) {
      const [old, now] = [this.#samples[index - 1], this.#samples[index]];
      let requests = 0;
      for (const [key, model] of now.models) {
        const before = old.models.get(key)?.requests;
        if (before !== undefined && before <= model.requests) requests += model.requests - before;
      }
      const seconds = now.status.at - old.status.at;
      if (seconds > 0) points.push(requests / seconds);
    }
    return points;
  }

  /** The oldest answer with this entry since which its counts have never fallen. */
  #past(kind, key, grown) {
    let past = null;
    let now = this.#samples.at(-1)[kind].get(key);
    for (let index = this.#samples.length - 2; index >= 0; index -= 1) {
      const { [kind]: entries, status } = this.#samples[index];
      const entry = entries.get(key);
      if (!entry || !grown(entry, now)) break;
      past = { entry, at: status.at };
      now = entry;
    }
    return past;
  }
}
