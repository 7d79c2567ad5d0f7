// Host calls of every plugin: payloads, request parameters, assets, config, state, metrics, the
// log.

import assets from "hostler:plugin/assets@0.1.0";
import metrics from "hostler:plugin/metrics@0.1.0";
import hostState from "hostler:plugin/state@0.1.0";
import store from "wasi:config/store@0.2.0-rc.1";
import logging from "wasi:logging/logging@0.1.0-draft";
import * as check from "./arguments.js";
import { errorOf, failed, hostCall, invalid } from "./errors.js";
import { didYouMean, quoted, shown } from "./names.js";

// Payloads

export function json(text) {
  if (typeof text === "string") return { tag: "json", val: text };
  throw new TypeError(
    `hostler.json() takes the text of one JSON value, and got ${shown(text)}: write hostler.json(JSON.stringify(value))`,
  );
}

export function bytes(contentType, data) {
  check.string(contentType, "hostler.bytes()", "the content type");
  return { tag: "bytes", val: { contentType, data: check.bytes(data, "hostler.bytes()") } };
}

export const tensors = (list) => ({ tag: "tensors", val: check.tensorList(list, "hostler.tensors() takes") });

// Request parameters

export const flag = (request, name) => parameter(request, name, "true or false", ["boolean"]) ?? false;
export const text = (request, name) => parameter(request, name, "a text", ["text"]);
export const integer = (request, name) => parameter(request, name, "a whole number", ["integer"]);
export const number = (request, name) => parameter(request, name, "a number", ["number", "integer"]);

function parameter(request, name, expected, kinds) {
  const found = request.parameter(name);
  if (found === null) return null;
  if (!kinds.includes(found.tag)) {
    throw invalid(`parameters.${name}`, `parameter "${name}": expected ${expected}`);
  }
  return found.val;
}

// Assets and config of the manifest

export function asset(name) {
  check.string(name, "hostler.asset()", "the name");
  try {
    return assets.read(name, 0, assets.size(name));
  } catch (thrown) {
    throw failed(`asset "${name}": ${errorOf(thrown)?.message ?? thrown}`);
  }
}

export const assetNames = () => assets.names();

export const config = (key) => store.get(check.string(key, "hostler.config()", "the key"));

export const configAll = () => Object.fromEntries(store.getAll());

// State

const ttl = (ms, subject) => (ms === null ? null : check.whole(ms, subject, "the time to live, in milliseconds,"));
const key = (name, subject) => check.string(name, subject, "the key");
const counterName = (name, subject) => {
  if (check.string(name, subject, "the counter").length <= 1024) return name;
  throw new RangeError(`${subject}: the name of a counter has at most 1024 bytes`);
};

export const state = {
  get: (name) => hostState.get(key(name, "state.get()")),
  set(name, value, ttlMs = null) {
    const subject = "state.set()";
    const [data, ms] = [check.bytes(value, subject, "the value"), ttl(ttlMs, subject)];
    hostCall(() => hostState.set(key(name, subject), data, ms));
  },
  delete: (name) => hostState.delete(key(name, "state.delete()")),
  getTensors: (name) => hostState.getTensors(key(name, "state.getTensors()")),
  setTensors(name, list, ttlMs = null) {
    const subject = "state.setTensors()";
    const [tensors, ms] = [check.tensorList(list, `${subject} takes`), ttl(ttlMs, subject)];
    hostCall(() => hostState.setTensors(key(name, subject), tensors, ms));
  },
  add: (name, delta) =>
    hostState.add(counterName(name, "state.add()"), check.integer(delta, "state.add()", "the number to add")),
  compareExchange: (name, expected, value) => {
    const subject = "state.compareExchange()";
    const numbers = [
      check.integer(expected, subject, "the expected value"),
      check.integer(value, subject, "the new value"),
    ];
    return hostState.compareExchange(counterName(name, subject), ...numbers);
  },
};

// Metrics

const metricName = (name, subject) => {
  if (/^[A-Za-z0-9_]{1,64}$/.test(check.string(name, subject, "the name"))) return name;
  throw new RangeError(`${subject}: a name has 1 to 64 letters, digits and "_", and this one is ${quoted(name)}`);
};

export const count = (name, by = 1) =>
  metrics.count(metricName(name, "hostler.count()"), check.whole(by, "hostler.count()", "the number to add"));
export const gauge = (name, value) =>
  metrics.set(metricName(name, "hostler.gauge()"), check.number(value, "hostler.gauge()", "the value"));

const definition = (subject, name, help, labels) => [
  check.string(name, subject, "the name"),
  check.string(help, subject, "the help text"),
  check.strings(labels, subject, "the labels"),
];

export function counter(name, help, labels = []) {
  const checked = definition("hostler.counter()", name, help, labels);
  return hostCall(() => metrics.Counter.create(...checked));
}
export function gaugeOf(name, help, labels = []) {
  const checked = definition("hostler.gaugeOf()", name, help, labels);
  return hostCall(() => metrics.Gauge.create(...checked));
}
export function histogram(name, help, buckets, labels = []) {
  const subject = "hostler.histogram()";
  if (!Array.isArray(buckets) && !ArrayBuffer.isView(buckets)) {
    throw new TypeError(`${subject}: the buckets must be a list of ascending upper bounds, and are ${shown(buckets)}`);
  }
  const bounds = Array.from(buckets, (bound, i) => check.number(bound, subject, `bucket ${i}`));
  const checked = definition(subject, name, help, labels);
  return hostCall(() => metrics.Histogram.create(...checked, bounds));
}

for (const [Handle, method, subject, fallback] of [
  [metrics.Counter, "add", "counter.add()", 1],
  [metrics.Gauge, "set", "gauge.set()", undefined],
  [metrics.Gauge, "add", "gauge.add()", 1],
  [metrics.Histogram, "observe", "histogram.observe()", undefined],
]) {
  check.checked(Handle, method, (values, value = fallback) => [
    check.strings(values, subject, "the values of the labels"),
    check.number(value, subject, "the second argument"),
  ]);
}

// The log

const LEVELS = ["trace", "debug", "info", "warn", "error", "critical"];

export function log(message, level = "info") {
  if (!LEVELS.includes(level)) {
    throw new TypeError(
      `hostler.log(): unknown level ${quoted(level)}${didYouMean(level, LEVELS)}; the levels are ${LEVELS.join(", ")}`,
    );
  }
  logging.log(level, "", String(message));
}
