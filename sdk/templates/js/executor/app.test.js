// Unit tests of app.js. `host` stands in for the host.

import assert from "node:assert/strict";
import test from "node:test";
import * as hostler from "hostler-plugin";
import { host } from "hostler-plugin/testing";
import { executor } from "./app.js";

const x = () => [hostler.tensor("x", "FP32", [1], [41])];

// Makes a model that fails this often, and then adds 1.
function failing(times, error) {
  let calls = 0;
  const run = ([x]) => {
    calls += 1;
    if (calls <= times) throw error;
    return [hostler.tensor("y", "FP32", [1], [Number(hostler.elements(x)[0]) + 1])];
  };
  return { run, calls: () => calls };
}

test.beforeEach(() => host.reset());

test("calls the model again if it fails", () => {
  const model = failing(1, hostler.error("unavailable", "try again"));
  const [y] = host.submit(executor, x(), model.run);
  assert.deepEqual([...hostler.elements(y)], [42]);
  assert.equal(model.calls(), 2);
});

test("config sets the number of attempts", () => {
  host.config({ attempts: "3" });
  const model = failing(3, hostler.failed("broken"));
  assert.throws(() => host.submit(executor, x(), model.run), { kind: "failed" });
  assert.equal(model.calls(), 3);
});

test("does not repeat a mistake of the caller", () => {
  const model = failing(1, hostler.invalid("x", "too large"));
  assert.throws(() => host.submit(executor, x(), model.run), { kind: "invalid-input", field: "x" });
  assert.equal(model.calls(), 1);
});
