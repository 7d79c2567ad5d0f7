// What tests share.

import assert from "node:assert/strict";
import { host } from "../testing/index.js";
import * as hostler from "../hostler.js";

// Returns the error that a call throws.
export function thrown(call) {
  try {
    call();
  } catch (error) {
    return error;
  }
  assert.fail("expected an error");
}

// Returns a model with one FP32 input and output, `x`.
export const modelOf = (predict) =>
  hostler.model({
    metadata: () => ({ inputs: [hostler.spec("x", "FP32", [-1])], outputs: [hostler.spec("x", "FP32", [-1])] }),
    predict,
  });

export const x = (...numbers) => hostler.tensor("x", "FP32", [numbers.length], numbers);

// Returns the message of the error that a call of `predict` ends with.
export const fault = (predict, inputs = [x(1)], request = {}) =>
  thrown(() => host.predict(modelOf(predict), inputs, request)).message;
