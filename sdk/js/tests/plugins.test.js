// The plugins of this repository, with the stand-ins.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test, { beforeEach } from "node:test";
import { executor } from "../../../plugins/hedge-js/app.js";
import { transformer } from "../../../plugins/churn-js/app.js";
import { transformer as caller } from "../../../tests/plugins/caller-js/app.js";
import { model as meter } from "../../../tests/plugins/meter-js/app.js";
import { model as sum, optionalInputs } from "../../../tests/plugins/optional-js/app.js";
import * as hostler from "../hostler.js";
import { host } from "../testing/index.js";
import { handle, newTensor, borrow } from "../testing/interfaces/types.js";
import { thrown, x } from "./support.js";

const cases = JSON.parse(readFileSync(new URL("../../../tests/data/churn_cases.json", import.meta.url), "utf8"));

const bytes = (base64) => new Uint8Array(Buffer.from(base64, "base64"));
const tensors = (list) =>
  list.map(({ name, datatype, shape, base64 }) =>
    handle(newTensor(name, datatype.toLowerCase(), shape, bytes(base64))),
  );
const contents = (list) => list.map(borrow).map(({ name, datatype, shape, data }) => ({ name, datatype, shape, data }));

function payload({ json, bytes: blob, tensors: list }) {
  if (json !== undefined) return hostler.json(json);
  return blob ? hostler.bytes(blob.content_type, bytes(blob.base64)) : hostler.tensors(tensors(list));
}

function refused(call, error) {
  const { kind, message, field } = thrown(call);
  assert.deepEqual({ kind, message, field }, error);
}

beforeEach(() => {
  host.reset();
  host.assets({ scaling: JSON.stringify(cases.scaling) });
});

test("churn-js preprocesses as its cases say", () => {
  for (const one of cases.preprocess) {
    const request = host.request({ parameters: one.parameters ?? {} });
    const call = () => host.preprocess(transformer, payload(one), request);
    if (one.error) {
      refused(call, one.error);
      continue;
    }
    const outputs = call();
    assert.equal(hostler.decoded(request.note()), one.note ?? "", one.name);
    if (one.passes) assert.deepEqual(contents(outputs), contents(tensors(one.tensors)), one.name);
    else assert.deepEqual([...hostler.elements(outputs[0])], one.rows.flat(), one.name);
  }
});

test("churn-js postprocesses as its cases say", () => {
  for (const one of cases.postprocess) {
    const call = () => host.postprocess(transformer, tensors(one.outputs), { note: one.note });
    if (one.error) refused(call, one.error);
    else if (one.passes) assert.deepEqual(contents(call().val), contents(tensors(one.outputs)), one.name);
    else assert.equal(call().val, one.answer, one.name);
  }
});

test("hedge-js hedges", () => {
  const times = [100, 5];
  const slow = host.model("slow", (inputs) => inputs, { ms: () => times.shift() });
  host.submit(executor, [x(1)], slow);
  assert.deepEqual([host.metric("hedges"), host.now], [1, 25]);
});

test("caller-js calls models before and after", () => {
  const plus =
    (one) =>
    ([tensor]) => [
      hostler.tensor(
        "y",
        "FP32",
        tensor.shape(),
        hostler.elements(tensor).map((y) => y + one),
      ),
    ];
  host.model("one", plus(1));
  host.model("ten", plus(10));
  host.config({ before: "one", after: "ten" });
  const inputs = host.preprocess(caller, hostler.json("[1, 2]"));
  const outputs = inputs.map((tensor) => tensor.renamed("y"));
  assert.equal(host.postprocess(caller, outputs).val, "[12.0,13.0]");
});

test("meter-js counts, and optional-js adds what there is", () => {
  host.predict(meter, [hostler.tensor("message", "BYTES", [1], ["abc"])], { model: "m" });
  assert.deepEqual([host.metric("answers", ["m"]), host.metric("elements"), host.metric("lengths")], [1, 1, [3]]);
  const input = (name) => hostler.tensor(name, "FP32", [1], [2]);
  const total = (inputs) => hostler.elements(host.predict(sum, inputs, {}, { optional: optionalInputs })[0])[0];
  assert.deepEqual([total([input("a")]), total([input("a"), input("b")])], [2, 4]);
});
