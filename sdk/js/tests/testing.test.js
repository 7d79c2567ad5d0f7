import assert from "node:assert/strict";
import test, { beforeEach } from "node:test";
import * as calls from "../executor.js";
import * as hostler from "../hostler.js";
import { host } from "../testing/index.js";
import { modelOf, thrown, x } from "./support.js";

beforeEach(() => host.reset());

const numbers = ([tensor]) => [...hostler.elements(tensor)];

test("config, assets, state and the log", () => {
  host.config({ region: "eu" });
  host.assets({ words: "a,b", raw: new Uint8Array([1]), self: new URL(import.meta.url) });
  const model = modelOf((request, inputs) => {
    hostler.log(`in ${hostler.config("region")}, ${hostler.config("none")}`, "warn");
    const runs = hostler.state.add("runs", 1);
    hostler.state.set("last", hostler.encoded(`${runs}`), 50);
    hostler.state.setTensors("kept", inputs);
    return [hostler.tensor("x", "FP32", [1], [hostler.asset("words").length])];
  });
  assert.deepEqual(numbers(host.predict(model, [x(1, 2)])), [3]);
  assert.deepEqual(host.log, [{ level: "warn", context: "", message: "in eu, null" }]);
  assert.equal(hostler.decoded(hostler.state.get("last")), "1");
  host.advance(50);
  assert.equal(hostler.state.get("last"), null);
  assert.deepEqual(numbers(hostler.state.getTensors("kept")), [1, 2]);
  assert.equal(hostler.state.delete("kept"), true);
  assert.equal(hostler.state.delete("kept"), false);
  hostler.state.compareExchange("runs", 1, 5);
  assert.equal(thrown(() => hostler.state.compareExchange("runs", 1, 6)).payload, 5);
  host.stateKb(1);
  assert.equal(thrown(() => hostler.state.set("big", new Uint8Array(2048))).kind, "too-large");
  assert.match(
    thrown(() => hostler.asset("wrods")).message,
    /asset "wrods": no asset "wrods" \(did you mean "words"\?\)/,
  );
  assert.deepEqual([hostler.assetNames().length, hostler.configAll()], [3, { region: "eu" }]);
});

test("metrics", () => {
  hostler.count("hedges");
  hostler.count("hedges", 2);
  hostler.gauge("depth", 1.5);
  hostler.counter("rows", "Rows.", ["country"]).add(["de"]);
  hostler.counter("rows", "Rows.", ["country"]).add(["de"], 2);
  hostler.histogram("wait", "Wait.", [1, 10]).observe([], 5);
  assert.deepEqual(
    [host.metric("hedges"), host.metric("depth"), host.metric("rows", ["de"]), host.metric("wait")],
    [3, 1.5, 3, [5]],
  );
  assert.equal(host.metric("rows", ["fr"]), null);
  assert.match(thrown(() => host.metric("hegdes")).message, /did you mean "hedges"/);
  assert.equal(thrown(() => hostler.counter("rows", "Other.")).kind, "failed");
  assert.equal(thrown(() => hostler.gaugeOf("x_total", "X.")).kind, "failed");
  assert.match(thrown(() => hostler.counter("rows", "Rows.", ["country"]).add([])).message, /0 values for 1 labels/);
  assert.match(
    thrown(() => hostler.counter("rows", "Rows.", ["country"]).add("de")).message,
    /must be a list of strings/,
  );
});

test("inputs and outputs are checked against the metadata", () => {
  const pass = modelOf((request, inputs) => inputs);
  assert.deepEqual(host.metadata(pass).inputs, [{ name: "x", datatype: "FP32", shape: [-1] }]);
  const wrongInput = (inputs) => {
    const { kind, message, field } = thrown(() => host.predict(pass, inputs));
    return [kind, field, message];
  };
  const tensor = (name, datatype, shape, elements) => [hostler.tensor(name, datatype, shape, elements)];
  assert.deepEqual(wrongInput([]), ["invalid-input", "x", 'input "x" (FP32 [-1]) is missing']);
  assert.deepEqual(wrongInput(tensor("x", "FP64", [1], [1])), [
    "invalid-input",
    "x",
    'input "x": expected FP32 [-1], got FP64 [1]',
  ]);
  assert.deepEqual(wrongInput(tensor("x", "FP32", [1, 1], [1])), [
    "invalid-input",
    "x",
    'input "x": expected FP32 [-1], got FP32 [1,1]',
  ]);
  assert.match(wrongInput(tensor("X", "FP32", [1], [1]))[2], /no input "X" \(did you mean "x"\?\)/);
  const misnamed = modelOf(() => tensor("y", "FP32", [1], [1]));
  const { kind, message } = thrown(() => host.predict(misnamed, [x(1)]));
  assert.equal(kind, "failed");
  assert.equal(
    message,
    'the plugin returned the output "y" (FP32 [1]), which its metadata does not declare; it declares "x" (FP32 [-1])',
  );
});

test("a model's outputs may have any shape when they are passed on", () => {
  host.model("inner", () => [hostler.tensor("x", "FP32", [1, 1], [7])]);
  assert.deepEqual(
    numbers(
      host.predict(
        modelOf((request, inputs) => calls.getModel("inner").call(inputs)),
        [x(1)],
      ),
    ),
    [7],
  );
  const reshaper = modelOf((request, inputs) => [calls.getModel("inner").call(inputs)[0].reshaped([1, 1, 1])]);
  assert.match(thrown(() => host.predict(reshaper, [x(1)])).message, /does not declare/);
});

test("the tensors of a test stay usable, and those of the plugin do not", () => {
  const input = x(1);
  let kept;
  host.predict(
    modelOf((request, inputs) => (kept = inputs)),
    [input],
  );
  assert.deepEqual(numbers([input]), [1]);
  assert.match(thrown(() => kept[0].name()).message, /ownership has already been transferred/);
});

test("optional inputs", () => {
  const optional = hostler.optionalInputs("b");
  const model = hostler.model({
    metadata: () => ({ inputs: ["a", "b"].map((name) => hostler.spec(name, "FP32", [1])), outputs: [] }),
    predict: (request, inputs) => {
      hostler.count("inputs", inputs.length);
      return [];
    },
  });
  const a = [hostler.tensor("a", "FP32", [1], [1])];
  assert.match(thrown(() => host.predict(model, a)).message, /input "b" .* is missing/);
  host.predict(model, a, {}, { optional });
  assert.equal(host.metric("inputs"), 1);
});

test("a transformer passes its note on, and the request has all that a client sends", () => {
  const transformer = hostler.transformer({
    preprocess(request, input) {
      assert.deepEqual(
        [request.id(), request.model(), request.version(), request.cancelled()],
        ["r1", "m", "2", false],
      );
      assert.deepEqual([request.timeLeft(), request.parameterNames()], [100, ["explain", "top", "scale", "lang"]]);
      assert.deepEqual(
        [
          hostler.flag(request, "explain"),
          hostler.integer(request, "top"),
          hostler.number(request, "scale"),
          hostler.text(request, "lang"),
          hostler.text(request, "none"),
        ],
        [true, 3, 0.5, "de", null],
      );
      assert.throws(() => hostler.integer(request, "lang"), { kind: "invalid-input", field: "parameters.lang" });
      request.setNote(hostler.encoded("note"));
      return [hostler.tensor("x", "FP32", [1], [JSON.parse(input.val)])];
    },
    postprocess: (request, outputs) =>
      hostler.json(JSON.stringify([hostler.decoded(request.note()), ...hostler.elements(outputs[0])])),
  });
  assert.equal(host.metadata(transformer), null);
  const parameters = { explain: true, top: 3, scale: 0.5, lang: "de" };
  const request = host.request({ id: "r1", model: "m", version: "2", timeLeft: 100, parameters });
  const inputs = host.preprocess(transformer, hostler.json("41"), request);
  assert.deepEqual(host.postprocess(transformer, inputs, request), hostler.json('["note",41]'));
});

test("a request ends with its call", () => {
  let kept;
  host.predict(
    modelOf((request, inputs) => ((kept = request), inputs)),
    [x(1)],
  );
  assert.match(thrown(() => kept.id()).message, /used after the call/);
});

const hedge = calls.executor({
  submit(request, inputs, model) {
    const first = model.start(inputs);
    if (calls.waitAny([first], 20) !== null) return calls.outcome(first);
    hostler.count("hedges");
    const second = model.start(inputs);
    const [winner, loser] = calls.waitAny([first, second]) === 0 ? [first, second] : [second, first];
    calls.cancel(loser);
    assert.throws(() => calls.waitAny([loser]), /item 0 is an invocation that was cancelled/);
    return calls.outcome(winner);
  },
});

test("an executor waits on a clock that only waiting moves", () => {
  host.model("slow", (inputs) => inputs, { ms: 50 });
  assert.deepEqual(numbers(host.submit(hedge, [x(1)], (inputs) => inputs)), [1]);
  assert.throws(() => host.metric("hedges"));
  const times = [100, 5];
  const model = host.model("m", (inputs) => inputs, { ms: () => times.shift() });
  assert.deepEqual(numbers(host.submit(hedge, [x(2)], model)), [2]);
  assert.deepEqual([host.metric("hedges"), host.now], [1, 25]);
  assert.throws(() => hedge.submitBatch([], [], null), { kind: "unsupported" });
});

test("models of the test: errors, times, versions, streams", () => {
  host.model("refuses", () => {
    throw hostler.error("overloaded", "full");
  });
  host.model("slow", (inputs) => inputs, { ms: 30 });
  host.model("slow", () => [x(9)], { version: "2" });
  host.model("many", (inputs) => [inputs, inputs], { streaming: true });
  host.model("strict", (inputs) => inputs, { metadata: { inputs: [hostler.spec("x", "FP32", [2])], outputs: [] } });
  const model = (name, version = null) =>
    modelOf((request, inputs) => calls.callWithin(calls.getModel(name, version), inputs, 20));
  const error = (name, version) => {
    const { kind, message } = thrown(() => host.predict(model(name, version), [x(1)]));
    return `${kind}: ${message}`;
  };
  assert.equal(error("refuses"), "overloaded: full");
  assert.equal(error("slow", "1"), 'deadline: model "slow" has not answered within 20000 us');
  assert.deepEqual(numbers(host.predict(model("slow"), [x(1)])), [9]);
  assert.match(error("solw"), /not-found: no model "solw" \(did you mean "slow"\?\)/);
  assert.match(error("slow", "3"), /not-found: model "slow" has no version "3"/);
  assert.match(error("many"), /unsupported: model "many" has 0..n responses/);
  assert.match(error("strict"), /invalid-input: input "x": expected FP32 \[2\], got FP32 \[1\]/);
  const streamer = modelOf((request, inputs) => {
    const lists = [...calls.responses(calls.getModel("many").start(inputs))];
    return [hostler.tensor("x", "FP32", [1], [lists.length])];
  });
  assert.deepEqual(numbers(host.predict(streamer, [x(1)])), [2]);
  const moved = modelOf((request, inputs) => {
    inputs[0][Symbol.dispose]();
    return calls.getModel("slow").call(inputs);
  });
  assert.match(
    thrown(() => host.predict(moved, [x(1)])).message,
    /model.call\(\) takes a list of tensors .*; item 0 was disposed of/,
  );
});

test("an executor answers early, and batches have an outcome for each request", () => {
  const early = calls.executor({
    submit(request, inputs, model) {
      calls.answer(model.call(inputs));
      calls.sleep(10);
      hostler.count("after");
    },
    submitBatch(requests, lists, model) {
      return lists.map((inputs, i) =>
        i === 1 ? { tag: "err", val: hostler.invalid("x", "no") } : { tag: "ok", val: model.call(inputs) },
      );
    },
  });
  assert.deepEqual(numbers(host.submit(early, [x(3)], (inputs) => inputs)), [3]);
  assert.equal(host.metric("after"), 1);
  assert.deepEqual(host.log, []);
  const [ok, refused] = host.submitBatch(early, [[x(1)], [x(2)]], (inputs) => inputs);
  assert.deepEqual([numbers(ok), refused.kind, refused.field], [[1], "invalid-input", "x"]);
  const short = calls.executor({ submit() {}, submitBatch: () => [] });
  assert.match(
    thrown(() => host.submitBatch(short, [[x(1)]], (inputs) => inputs)).message,
    /there are 1 requests, and 0 outcomes/,
  );
});

test("HTTP servers of the test", async () => {
  const { default: http } = await import("hostler:plugin/http@0.1.0");
  const request = {
    method: "GET",
    url: "https://features.internal/1",
    headers: [],
    body: new Uint8Array(),
    timeoutMs: null,
  };
  assert.equal(hostler.errorOf(thrown(() => http.fetch(request))).kind, "unsupported");
  host.http(({ url }) => ({ status: 404, body: url }));
  const { status, body } = http.fetch(request);
  assert.deepEqual([status, hostler.decoded(body)], [404, request.url]);
});
