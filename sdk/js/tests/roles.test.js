import assert from "node:assert/strict";
import test from "node:test";
import * as calls from "../executor.js";
import * as hostler from "../hostler.js";
import { host } from "../testing/index.js";
import { fault, modelOf, thrown, x } from "./support.js";

const metadata = () => ({ inputs: [], outputs: [] });

test("missing, misspelt and asynchronous functions are reported at evaluation", () => {
  const cases = [
    [
      () => hostler.model({ metadata, predcit() {} }),
      /hostler.model\(\): unknown function "predcit" \(did you mean "predict"\?\); the functions of this role are metadata, predict/,
    ],
    [() => hostler.model({ metadata }), /hostler.model\(\): the function "predict" is missing/],
    [() => hostler.model({ metadata, predict: 5 }), /"predict" must be a function, and is the number 5/],
    [() => hostler.model(), /expected an object with functions, and got undefined/],
    [() => hostler.model({ metadata, async predict() {} }), /"predict" is an async function or a generator/],
    [
      () => hostler.transformer({ preprocess() {}, postproces() {} }),
      /unknown function "postproces" \(did you mean "postprocess"\?\)/,
    ],
    [() => hostler.transformer({ preprocess() {} }), /hostler.transformer\(\): the function "postprocess" is missing/],
    [
      () => calls.executor({ submti() {} }),
      /hostler.executor\(\): unknown function "submti" \(did you mean "submit"\?\)/,
    ],
    [
      () => hostler.model({ metadata, predict: (tensors) => tensors }),
      /the first parameter of "predict" is the request, and it is named "tensors": write predict\(request, tensors\)/,
    ],
    [
      () => hostler.model({ metadata, predict: (request, tensors, model) => model }),
      /"predict" has 3 parameters, and is called with 2: write predict\(request, tensors\)/,
    ],
    [() => hostler.optionalInputs(["a", "b"]), /argument 0 must be the name of an input, and is an Array/],
  ];
  for (const [call, expected] of cases) assert.match(thrown(call).message, expected);
});

test("an instance of a class is a role too, and keeps its this", () => {
  class Doubler {
    factor = 2;
  }
  const doubler = new Doubler();
  assert.match(thrown(() => hostler.model(doubler)).message, /unknown function "factor"/);
  const functions = Object.create({
    metadata: () => ({ inputs: [], outputs: [hostler.spec("x", "FP32", [1])] }),
    predict() {
      return [x(this.answer())];
    },
    answer: () => 42,
  });
  assert.deepEqual([...hostler.elements(host.predict(hostler.model(functions), [])[0])], [42]);
});

test("an exception becomes one line with the function and the author's line", () => {
  host.reset();
  const message = fault(function score(request) {
    return request.nothing.length;
  });
  assert.match(
    message,
    /^model.predict threw TypeError: Cannot read properties of undefined \(reading 'length'\), at .*score \(.*roles\.test\.js:\d+:\d+\)$/,
  );
  assert.equal(host.log.length, 1);
  assert.equal(host.log[0].level, "error");
  assert.match(host.log[0].message, /^model.predict threw TypeError: .*\n {4}at /);
  const inside = fault(() => [hostler.tensor("x", "INT8", [1], [300])]);
  assert.match(inside, /RangeError: hostler.tensor\("x", "INT8", \[1\]\): element 0 .*, at .*roles\.test\.js:/);
  assert.match(
    fault(() => {
      throw "text";
    }),
    /^model.predict threw the string "text" instead of an Error/,
  );
  assert.match(
    fault(() => {
      throw new Error("two\nlines");
    }),
    /threw Error: two lines, at/,
  );
});

test("errors of the contract keep kind, message and field", () => {
  const ends = (error) => {
    const { kind, message, field } = thrown(() =>
      host.predict(
        modelOf(() => {
          throw error;
        }),
        [x(1)],
      ),
    );
    return [kind, message, field];
  };
  assert.deepEqual(ends(hostler.invalid("age", "too old")), ["invalid-input", "too old", "age"]);
  assert.deepEqual(ends({ kind: "overloaded", message: "later" }), ["overloaded", "later", null]);
  assert.deepEqual(ends(Object.assign(new Error("gone"), { kind: "not-found" })), ["not-found", "gone", null]);
  const [kind, message] = ends({ kind: "invalid_input", message: "x" });
  assert.equal(kind, "failed");
  assert.match(message, /unknown kind "invalid_input" \(did you mean "invalid-input"\?\)/);
  assert.match(thrown(() => hostler.error("bad", "x")).message, /unknown kind "bad"; the kinds are/);
  assert.equal(hostler.errorOf(new Error("x")), null);
  assert.deepEqual(hostler.errorOf(hostler.failed("x")), { kind: "failed", message: "x", field: null });
});

test("wrong results of predict name the element", () => {
  const expected = "model.predict must return a list of tensors made by hostler.tensor()";
  const cases = [
    [() => undefined, `${expected}, and returned nothing: is a "return" missing?`],
    [() => Promise.resolve([]), `${expected}, and returned a Promise: a plugin cannot wait for Promises;`],
    [() => 5, `${expected}, and returned the number 5`],
    [() => x(1), `${expected}, and returned a tensor: put it in brackets`],
    [() => [x(1), [1, 2]], `${expected}; item 1 is an Array`],
    [() => [null], `${expected}; item 0 is null`],
  ];
  for (const [predict, message] of cases) assert.ok(fault(predict).startsWith(message), fault(predict));
});

test("a tensor is returned once, and belongs to the host then", () => {
  assert.match(
    fault((request, [one]) => [one, one]),
    /items 0 and 1 are the same tensor: return it once, or use tensor.renamed/,
  );
  let kept;
  const model = modelOf((request, inputs) => (kept === undefined ? (kept = inputs) : kept));
  host.predict(model, [x(1)]);
  assert.match(
    thrown(() => host.predict(model, [x(1)])).message,
    /item 0 is a tensor that model.predict returned before, so it belongs to the host/,
  );
  const reader = modelOf(() => [kept[0].renamed("x")]);
  assert.match(
    thrown(() => host.predict(reader, [x(1)])).message,
    /ownership has already been transferred: a tensor belongs to the host/,
  );
  const disposer = modelOf((request, inputs) => {
    inputs[0][Symbol.dispose]();
    return inputs;
  });
  assert.match(thrown(() => host.predict(disposer, [x(1)])).message, /item 0 was disposed of/);
});

test("wrong metadata and wrong payloads", () => {
  const of = (result) => thrown(() => hostler.model({ metadata: () => result, predict() {} }).metadata()).message;
  assert.match(of(undefined), /^model.metadata must return \{ inputs, outputs \}.*returned nothing/);
  assert.match(of({ inputs: [] }), /"outputs" is undefined/);
  assert.match(of({ inputs: [5], outputs: [] }), /item 0 of "inputs" is the number 5/);
  assert.match(
    of({ inputs: [{ name: "x", datatype: "FP23", shape: [] }], outputs: [] }),
    /model.metadata: inputs, "x": unknown datatype "FP23"/,
  );
  const post = (result) => {
    const transformer = hostler.transformer({ preprocess: () => [], postprocess: () => result });
    return thrown(() => host.postprocess(transformer, [])).message;
  };
  assert.match(post(undefined), /transformer.postprocess must return a payload .* returned nothing/);
  assert.match(post("{}"), /returned a string: if it is JSON, return hostler.json\(text\)/);
  assert.match(post([x(1)]), /returned an Array: return hostler.tensors\(list\)/);
  assert.match(post({ tag: "json", val: "nope" }), /invalid JSON/);
  assert.match(thrown(() => hostler.json({ a: 1 })).message, /write hostler.json\(JSON.stringify\(value\)\)/);
});

test("arguments of host calls are checked", () => {
  const message = (call) => thrown(() => call(host.request())).message;
  assert.match(
    message((request) => request.setNote("abc")),
    /request.setNote\(\): the note must be a Uint8Array.*hostler.encoded/,
  );
  assert.match(
    message((request) => request.parameter(5)),
    /the name must be a string, and is the number 5/,
  );
  assert.match(
    message(() => x(1).read(-1, 4)),
    /tensor.read\(\): the offset must be a whole number, at least 0/,
  );
  assert.match(
    message(() => x(1).reshaped([2])),
    /needs 8 bytes, got 4/,
  );
  assert.match(
    message(() => hostler.count("a b")),
    /hostler.count\(\): a name has 1 to 64 letters/,
  );
  assert.match(
    message(() => hostler.count("a", -1)),
    /must be a whole number, at least 0, and is the number -1/,
  );
  assert.match(
    message(() => hostler.log("x", "warning")),
    /unknown level "warning" \(did you mean "warn"\?\)/,
  );
  assert.match(
    message(() => hostler.state.set("k", "text")),
    /state.set\(\): the value must be a Uint8Array/,
  );
  assert.match(
    message(() => calls.getModel(5)),
    /calls.getModel\(\): the model must be a string/,
  );
  assert.match(
    message(() => calls.waitAny([])),
    /would wait forever/,
  );
  assert.match(
    message(() => calls.waitAny([5])),
    /expected a list of invocations/,
  );
});

test("an error that the SDK throws is logged with its place, and one of the author is not", () => {
  host.reset();
  const refused = (preprocess) => {
    const transformer = hostler.transformer({ preprocess, postprocess: () => hostler.json("1") });
    return thrown(() => host.preprocess(transformer, hostler.json("1")));
  };
  const missing = refused(function preprocess() {
    return hostler.asset("labels");
  });
  assert.equal(missing.kind, "failed");
  assert.match(host.log.at(-1).message, /^transformer\.preprocess threw failed: asset "labels".*, at preprocess \(.*roles\.test\.js:\d+:\d+\)$/);
  const lines = host.log.length;
  assert.equal(refused(() => { throw hostler.failed("own"); }).message, "own");
  assert.equal(host.log.length, lines);
});
