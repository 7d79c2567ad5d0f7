// The stand-in for `hostler:plugin/metrics`.

import { abort, argument, arity, hostError, memory } from "../memory.js";

const NAMES_MAX = 64;
const LABELS_MAX = 8;
const BUCKETS_MAX = 32;
const LABEL_BYTES_MAX = 128;
const SERIES_MAX = 1000;
const SUFFIX = /_(total|bucket|sum|count)$/;

function checkName(name) {
  argument(name, "string", "metrics: name");
  if (!/^[A-Za-z0-9_]{1,64}$/.test(name)) throw abort(`metric "${name}": a name has 1 to 64 letters, digits and '_'`);
  const known = memory.events.has(name) || memory.values.has(name);
  if (!known && memory.events.size + memory.values.size >= NAMES_MAX) {
    throw abort(`metric "${name}": a plugin has at most ${NAMES_MAX} names of metrics`);
  }
}

export function count(...args) {
  arity(args, 2, "count");
  const [name, by] = args;
  checkName(name);
  memory.events.set(name, (memory.events.get(name) ?? 0) + argument(by, "u64", "metrics.count: by"));
}

export function set(...args) {
  arity(args, 2, "set");
  const [name, value] = args;
  checkName(name);
  memory.values.set(name, argument(value, "number", "metrics.set: value"));
}

function define(kind, Handle, name, help, labels, buckets = []) {
  const label = `metric "${argument(name, "string", "metrics: name")}"`;
  const definition = { kind, help, labels: [...labels], buckets: [...buckets] };
  const known = memory.families.get(name);
  if (known !== undefined) {
    if (JSON.stringify(known.definition) !== JSON.stringify(definition)) {
      throw hostError("failed", `${label} exists already with another definition`);
    }
    return Object.assign(Object.create(Handle.prototype), { family: known });
  }
  if (!/^[A-Za-z_][A-Za-z0-9_]{0,63}$/.test(name) || SUFFIX.test(name)) {
    throw hostError(
      "failed",
      `${label}: a name has 1 to 64 letters, digits and '_', does not start with a digit, and does not end in a suffix that the host adds`,
    );
  }
  if (buckets.some((bound, i) => i > 0 && !(bound > buckets[i - 1]))) {
    throw hostError("failed", `${label}: buckets must ascend`);
  }
  const exceeded = [
    [memory.families.size + 1, NAMES_MAX, "metrics"],
    [labels.length, LABELS_MAX, "labels"],
    [buckets.length, BUCKETS_MAX, "buckets"],
  ].find(([number, max]) => number > max);
  if (exceeded)
    throw hostError("too-large", `${label}: ${exceeded[0]} ${exceeded[2]}; at most ${exceeded[1]} are allowed`);
  const family = { name, definition, series: new Map() };
  memory.families.set(name, family);
  return Object.assign(Object.create(Handle.prototype), { family });
}

function change({ name, definition, series }, values, apply) {
  argument(values, "list", "metrics: values");
  if (values.length !== definition.labels.length) {
    throw hostError("failed", `metric "${name}": ${values.length} values for ${definition.labels.length} labels`);
  }
  if (values.some((value) => value.length > LABEL_BYTES_MAX)) {
    throw hostError("too-large", `metric "${name}": the value of a label has at most ${LABEL_BYTES_MAX} bytes`);
  }
  const key = JSON.stringify(values);
  const all = [...memory.families.values()].reduce((sum, family) => sum + family.series.size, 0);
  if (!series.has(key) && all >= SERIES_MAX) {
    throw hostError("too-large", `metric "${name}": a plugin has at most ${SERIES_MAX} time series`);
  }
  series.set(key, apply(series.get(key)));
}

export class Counter {
  static create(name, help, labels) {
    return define("counter", Counter, name, help, labels);
  }
  add(values, by) {
    argument(by, "number", "counter.add: by");
    if (!(by >= 0))
      throw hostError(
        "failed",
        `metric "${this.family.name}": a counter only increases, and ${by} is not a number from 0`,
      );
    change(this.family, values, (value = 0) => value + by);
  }
}

export class Gauge {
  static create(name, help, labels) {
    return define("gauge", Gauge, name, help, labels);
  }
  set(values, value) {
    change(this.family, values, () => argument(value, "number", "gauge.set: value"));
  }
  add(values, by) {
    change(this.family, values, (value = 0) => value + argument(by, "number", "gauge.add: by"));
  }
}

export class Histogram {
  static create(name, help, labels, buckets) {
    return define("histogram", Histogram, name, help, labels, buckets);
  }
  observe(values, value) {
    argument(value, "number", "histogram.observe: value");
    change(this.family, values, (all = []) => [...all, value]);
  }
}

export default { count, set, Counter, Gauge, Histogram };
