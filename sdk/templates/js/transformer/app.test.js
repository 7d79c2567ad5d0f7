// Unit tests of app.js. `host` stands in for the host.

import assert from "node:assert/strict";
import test from "node:test";
import * as hostler from "hostler-plugin";
import { host } from "hostler-plugin/testing";
import { transformer } from "./app.js";

test("the value becomes the input", () => {
  const [x] = host.preprocess(transformer, hostler.json('{"value": 41}'));
  assert.deepEqual([...hostler.elements(x)], [41]);
});

test("the output becomes the answer", () => {
  const answer = host.postprocess(transformer, [hostler.tensor("y", "FP32", [1], [42])]);
  assert.deepEqual(answer, hostler.json('{"answer":42}'));
});

test("refuses what is not a number", () => {
  const input = hostler.json('{"value": "x"}');
  assert.throws(() => host.preprocess(transformer, input), { kind: "invalid-input", field: "value" });
});
