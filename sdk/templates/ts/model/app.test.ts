// Unit tests of app.ts. `host` stands in for the host.

import assert from "node:assert/strict";
import test from "node:test";
import * as hostler from "hostler-plugin";
import { host } from "hostler-plugin/testing";
import { model } from "./app.js";

test("doubles each element", () => {
  const [y] = host.predict(model, [hostler.tensor("x", "FP32", [2], [1, 2.5])]);
  assert.equal(y.name(), "y");
  assert.deepEqual([...hostler.elements(y)], [2, 5]);
});

test("refuses a request without its input", () => {
  assert.throws(() => host.predict(model, []), { kind: "invalid-input", field: "x" });
});
