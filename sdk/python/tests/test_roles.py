"""Plugins in all roles against the stand-in: what they receive, what they may return, and what the
caller gets when they fail."""

import os
import subprocess
import sys
import unittest
from pathlib import Path

import pytest

import hostler_plugin as hostler
import hostler_testing
from hostler_testing import ContractError, Host, Model, Trap, raises, values

SDK = Path(__file__).parent.parent
X = [hostler.spec("x", "FP32", [-1])]


def doubled(inputs):
    x = hostler.elements(inputs[0])
    return [hostler.tensor("y", "FP32", [len(x)], [2 * x for x in x])]


def model(predict, base=hostler.Model):
    """Returns a host with a model whose `predict` is this function."""

    def metadata(self):
        return hostler.ModelMetadata(X, [hostler.spec("y", "FP32", [-1])])

    return Host(type("Model", (base,), {"metadata": metadata, "predict": predict}))


def fault(predict):
    """Returns the message of `failed` with which the call ends, and the host."""
    host = model(predict)
    with raises("failed") as caught:
        host.predict({"x": [1]})
    return caught.error.message, host


def test_a_model_gets_tensors_and_returns_them():
    host = model(lambda self, request, inputs: doubled(inputs))
    assert values(host.predict({"x": [1, 2.5]})) == {"y": [2, 5]}
    assert values(host.predict([hostler.tensor("x", "FP32", [1], [4])])) == {"y": [8]}


def test_inputs_are_checked_as_by_the_host():
    host = model(lambda self, request, inputs: doubled(inputs))
    with raises("invalid-input", field="z", message='no input "z"'):
        host.predict({"z": [1]})
    with raises("invalid-input", field="x", message="expected FP32, got INT32"):
        host.predict([hostler.tensor("x", "INT32", [1], [1])])
    with raises("invalid-input", field="x", message="expected shape [-1], got [1,1]"):
        host.predict({"x": [[1]]})
    with raises("invalid-input", message="missing"):
        host.predict([])


def test_outputs_are_checked_against_the_metadata():
    host = model(lambda self, request, inputs: inputs)
    with pytest.raises(ContractError, match=r"x: FP32 \[1\], which the metadata does not declare"):
        host.predict({"x": [1]})


def test_an_exception_is_failed_with_its_place():
    def predict(self, request, inputs):
        return 1 / 0

    message, host = fault(predict)
    line = predict.__code__.co_firstlineno + 1
    assert message == f"ZeroDivisionError: division by zero (in predict, test_roles.py:{line})"
    [(level, text)] = host.logs
    assert level == "ERROR" and text.startswith("Traceback (most recent call last):\n  File ")
    assert text.endswith("ZeroDivisionError: division by zero") and "_faults.py" not in text


def test_the_place_is_in_the_plugin_and_not_in_a_library():
    def predict(self, request, inputs):
        import json

        return json.loads("{")

    message, _ = fault(predict)
    assert message.startswith("JSONDecodeError: ") and message.endswith(f"{predict.__code__.co_firstlineno + 3})")


def test_exits_and_multi_line_messages_are_failed_in_one_line():
    def leave(self, request, inputs):
        raise SystemExit("over\nand out")

    assert fault(leave)[0].startswith("SystemExit: over and out (in leave, test_roles.py:")


def test_a_memory_error_ends_the_instance():
    def predict(self, request, inputs):
        raise MemoryError

    with pytest.raises(Trap, match="MemoryError"):
        model(predict).predict({"x": [1]})


@pytest.mark.parametrize(
    "returned, problem",
    [
        (lambda x: None, "it returned None: is a `return` missing?"),
        (lambda x: [x, [1]], "item 1 is a list"),
        (lambda x: x, "it returned one tensor: put it into a list"),
        (lambda x: {"y": x}, "it returned a dict"),
        (lambda x: [x, x], "items 0 and 1 are the same tensor"),
        (lambda x: (y for y in [x]), "it must not contain `yield`"),
    ],
)
def test_a_wrong_return_names_what_was_returned(returned, problem):
    message, host = fault(lambda self, request, inputs: returned(inputs[0]))
    assert message.startswith("Model.predict must return a list of tensors made by hostler.tensor(); ")
    assert problem in message and "(test_roles.py:" in message
    assert host.logs == [("ERROR", message)]


def test_a_coroutine_names_the_missing_await():
    async def predict(self, request, inputs):
        return inputs

    assert "define it with `def` instead of `async def`" in fault(predict)[0]


def test_a_returned_tensor_belongs_to_the_host():
    kept = []

    def predict(self, request, inputs):
        if not kept:
            kept.append(inputs[0].renamed("y"))
        return kept

    host = model(predict)
    assert values(host.predict({"x": [1]})) == {"y": [1]}
    with raises("failed", message="item 0 is a tensor that must not be used: it was returned to the host"):
        host.predict({"x": [1]})
    with pytest.raises(ValueError, match="renamed"):
        kept[0].name()


def test_super_and_own_methods_get_values_unchanged():
    class Base(hostler.Model):
        def metadata(self):
            return hostler.ModelMetadata(X, X)

        def predict(self, request, inputs):
            if request.parameter("fail"):
                raise KeyError("base")
            return inputs

    class Derived(Base):
        def predict(self, request, inputs):
            try:
                [x] = super().predict(request, inputs)
            except KeyError:
                raise hostler.invalid("x", "refused") from None
            return [x.reshaped([1])]

    host = Host(Derived)
    assert values(host.predict({"x": [1]})) == {"x": [1]}
    with raises("invalid-input", field="x", message="refused"):
        host.predict({"x": [1]}, parameters={"fail": True})


def test_an_err_of_another_type_is_failed():
    def predict(self, request, inputs):
        hostler.state.compare_exchange("c", 5, 6)

    assert "0 is not an error of the contract" in fault(predict)[0]

    def wrong(self, request, inputs):
        raise hostler.failed(5)

    assert "message must be a str" in fault(wrong)[0]


def test_metadata_of_a_wrong_type_cannot_be_an_error():
    class Plain(hostler.Model):
        def metadata(self):
            return {"inputs": []}

    with pytest.raises(TypeError, match="Plain.metadata must return a hostler.ModelMetadata; it returned a dict"):
        Host(Plain).metadata()

    class Wrong(hostler.Model):
        def metadata(self):
            return hostler.ModelMetadata(X, [5])

    with pytest.raises(TypeError, match=r"ModelMetadata.outputs\[0\] must be a TensorSpec, not an int"):
        Host(Wrong).metadata()


def test_a_class_without_the_base_class_works_and_its_faults_are_traps():
    class Plain:
        def metadata(self):
            return hostler.ModelMetadata(X, X)

        def predict(self, request, inputs):
            return {"a": 1 / 0, "b": inputs}

    app = type(sys)("app")
    app.Model = Plain
    with pytest.raises(Trap, match="Model.predict raised ZeroDivisionError"):
        Host(app).predict({"x": [1]})
    Plain.predict = lambda self, request, inputs: [inputs[0], inputs[0]]
    with pytest.raises(Trap, match="item 1 was moved"):
        Host(app).predict({"x": [1]})
    Plain.predict = lambda self, request, inputs: inputs
    assert values(Host(app).predict({"x": [1]})) == {"x": [1]}


def test_the_request():
    seen = {}

    def predict(self, request, inputs):
        seen.update(
            id=request.id(), model=request.model(), version=request.version(), left=request.time_left(),
            cancelled=request.cancelled(), names=request.parameter_names(), flag=hostler.flag(request, "flag"),
            integer=hostler.integer(request, "n"), number=hostler.number(request, "n"), text=hostler.text(request, "t"),
            note=request.note(), kept=request,
        )  # fmt: skip
        hostler.sleep(0.25)
        seen["later"] = request.time_left()
        request.set_note(b"new")
        return [inputs[0].renamed("y")]

    host = model(predict)
    parameters = {"flag": True, "n": 3, "t": "text"}
    host.predict({"x": [1]}, id="7", version="2", parameters=parameters, note=b"old", seconds=1)
    kept = seen.pop("kept")
    assert seen == {
        "id": "7", "model": "model", "version": "2", "left": 1000, "cancelled": False, "names": ["flag", "n", "t"],
        "flag": True, "integer": 3, "number": 3, "text": "text", "note": b"old", "later": 750,
    }  # fmt: skip
    assert host.note == b"new"
    with pytest.raises(Trap, match="after the call that received it"):
        kept.id()
    with raises("invalid-input", field="parameters.t"):
        host.predict({"x": [1]}, parameters={"t": 5})


def test_assets_config_state_metrics_and_log():
    def predict(self, request, inputs):
        assert hostler.asset("a") == b"data" and hostler.config("k") == "5" and hostler.config("none") is None
        assert hostler.config_number("k", 1, 0, 9) == 5 and hostler.assets.names() == ["a"]
        assert hostler.state.get("k") is None
        hostler.state.set("k", b"v", 100)
        hostler.state.set_tensors("t", inputs, None)
        assert hostler.state.get("k") == b"v" and values(hostler.state.get_tensors("t")) == {"x": [1]}
        hostler.sleep(0.2)
        assert hostler.state.get("k") is None and hostler.state.delete("t") and not hostler.state.delete("t")
        hostler.state.add("c", 2)
        hostler.state.compare_exchange("c", 2, 7)
        hostler.count("events", 2)
        hostler.gauge("level", 1.5)
        hostler.Counter("rows", "Rows.", ["country"]).add(["de"], 3)
        hostler.Gauge("depth", "Depth.").set(2)
        hostler.Histogram("wait", "Wait.", [0.1, 1]).observe(0.5)
        hostler.log("hello", "WARN")
        if hostler.flag(request, "asset"):
            hostler.asset("missing")
        if hostler.flag(request, "metric"):
            hostler.Counter("rows", "Others.")
        return [inputs[0].renamed("y")]

    host = model(predict)
    host.config, host.assets = {"k": "5"}, {"a": b"data"}
    host.predict({"x": [1]})
    assert host.state.counters == {"c": 7} and host.logs == [("WARN", "hello")]
    assert host.metrics.counts == {"events": 2} and host.metrics.values == {"level": 1.5}
    assert host.metrics.series == {"rows": {("de",): 3}, "depth": {(): 2}, "wait": {(): [0.5]}}
    host.state.counters.clear()
    with raises("failed", message='asset "missing": no asset "missing"; the test has "a"'):
        host.predict({"x": [1]}, parameters={"asset": True})
    host.state.counters.clear()
    with raises("failed", message="exists with another definition"):
        host.predict({"x": [1]}, parameters={"metric": True})


def test_calls_to_models_take_simulated_time():
    def predict(self, request, inputs):
        target = hostler.get_model("slow")
        assert (target.model(), target.version(), target.streaming()) == ("slow", "1", False)
        with target.start(inputs) as first:
            assert hostler.wait_any([first], seconds=0.02) is None
            assert first.outcome() is None
        return hostler.call_within(target, inputs, 3)

    host = model(predict)
    slow = host.models["slow"] = hostler_testing._host.as_model("slow", Model(doubled, seconds=1))
    assert values(host.predict({"x": [2]})) == {"y": [4]}
    assert [call.cancelled for call in slow.calls] == [True, False] and host.now == pytest.approx(1.02)
    with raises("deadline"):
        host.predict({"x": [2]}, seconds=0.5)
    host.models.clear()
    with raises("not-found", message='no model "slow"'):
        host.predict({"x": [2]})


def test_a_fault_in_a_function_of_the_test_is_not_the_plugins():
    host = model(lambda self, request, inputs: hostler.get_model("m").call(inputs))
    host.models["m"] = hostler_testing._host.as_model("m", lambda inputs: 1 / 0)
    with pytest.raises(hostler_testing.ModelFault, match='model "m" failed: ZeroDivisionError'):
        host.predict({"x": [1]})


class Executor(hostler.Executor):
    def submit(self, request, inputs, model):
        match hostler.text(request, "do"):
            case "answer":
                hostler.answer(model.call(inputs))
                raise KeyError("too late to matter")
            case "fall back":
                try:
                    return model.call(inputs)
                except hostler.Err:
                    return hostler.get_model("other").call(inputs)
        with model.start(inputs) as first:
            if hostler.wait_any([first], seconds=0.02) is not None:
                return hostler.outcome(first)
            with model.start(inputs) as second:
                calls = [first, second]
                return hostler.outcome(calls[hostler.wait_any(calls)])

    def submit_batch(self, requests, inputs, model):
        match hostler.text(requests[0], "do"):
            case "lists":
                return [model.call(one) for one in inputs]
            case "few":
                return []
        results = [hostler.Ok(model.call(one)) for one in inputs]
        results[-1] = hostler.invalid("x", "the last one")
        return results


def test_an_executor():
    host, inputs = Host(Executor), [hostler.tensor("x", "FP32", [1], [3])]
    inner = Model(doubled, seconds=0.1)
    assert values(host.submit(inputs, inner)) == {"y": [6]}
    assert len(inner.calls) == 2 and inner.calls[1].cancelled
    assert values(host.submit(inputs, doubled, parameters={"do": "answer"})) == {"y": [6]}

    def broken(inputs):
        raise hostler.error(hostler.ErrorKind.UNAVAILABLE, "down")

    host = Host(Executor, models={"other:2": doubled})
    assert values(host.submit(inputs, broken, parameters={"do": "fall back"})) == {"y": [6]}
    first, last = host.submit_batch([inputs, inputs], doubled)
    assert values(first) == {"y": [6]} and last.value.message == "the last one"
    with raises("failed", message="Executor.submit_batch must return a list with Ok(tensors) or Err(Error(...))"):
        host.submit_batch([inputs], doubled, parameters={"do": "lists"})
    with raises("failed", message="it returned 0 for 1 requests"):
        host.submit_batch([inputs], doubled, parameters={"do": "few"})


class Transformer(hostler.Transformer):
    def preprocess(self, request, input):
        import json

        if not isinstance(input, hostler.Json):
            raise hostler.unsupported("send JSON")
        request.set_note(b"seen")
        return [hostler.tensor("x", "FP32", [1], [json.loads(input.value)])]

    def postprocess(self, request, outputs):
        [y] = hostler.elements(hostler.named(outputs, "y"))
        answers = {2: hostler.Json(f"{y} "), 4: hostler.Json("nan"), 6: {"y": y}, 8: hostler.Tensors(outputs),
                   10: hostler.Bytes(b"raw"), 12: hostler.Bytes(hostler.Blob("text/plain", b"raw"))}  # fmt: skip
        assert request.note() == b"seen"
        return answers[y]


def test_a_transformer():
    host = Host(Transformer)
    assert host.transform(1, doubled) == 2
    with pytest.raises(ContractError, match="not JSON"):
        host.transform(2, doubled)
    with raises("failed", message="hostler.Json(json.dumps(value))"):
        host.transform(3, doubled)
    assert values(host.transform(4, doubled)) == {"y": [8]}
    with raises("failed", message='use hostler.Bytes(hostler.Blob("image/png", data))'):
        host.transform(5, doubled)
    assert host.transform(6, doubled).data == b"raw"
    with raises("unsupported"):
        host.preprocess(b"bytes")
    with pytest.raises(ContractError, match="do not fit"):
        host.preprocess(1, inputs=[hostler.spec("x", "INT32", [-1])])
    assert host.metadata() is None


def test_http():
    import hostler_http

    def predict(self, request, inputs):
        answer = hostler_http.success(hostler_http.fetch("https://a/b", headers={"accept": "x"}))
        return [hostler.tensor("y", "FP32", [1], [float(answer.body)])]

    host = model(predict)
    host.http = lambda request: (200, "5") if request.headers == [("accept", "x")] else 404
    assert values(host.predict({"x": [1]})) == {"y": [5]}
    host.http = lambda request: (503, b"")
    with raises("failed", message="status 503"):
        host.predict({"x": [1]})
    host.http = None
    with raises("unsupported", message="is not allowed"):
        host.predict({"x": [1]})
    with pytest.raises(TypeError, match="body must be bytes"):
        hostler_http.fetch("https://a", body="text")


class WithoutPytest(unittest.TestCase):
    def test_the_stand_in_works_in_unittest(self):
        host = model(lambda self, request, inputs: doubled(inputs))
        with raises("invalid-input"):
            host.predict({"z": [1]})


def test_a_project_is_tested_by_the_fixture(tmp_path):
    (tmp_path / "app.py").write_text(
        "import hostler_plugin as hostler\n\nclass Model(hostler.Model):\n    def metadata(self):\n"
        "        x = hostler.spec('x', 'FP32', [-1])\n        return hostler.ModelMetadata([x], [x])\n\n"
        "    def predict(self, request, inputs):\n        return inputs\n"
    )
    (tmp_path / "test_app.py").write_text(
        "import hostler_plugin\nfrom hostler_testing import values\n\ndef test_it(hostler_host):\n"
        "    assert values(hostler_host.predict({'x': [1, 2]})) == {'x': [1, 2]}\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "hostler_testing.pytest_plugin"]
    # The packages of this run may be found by this variable alone.
    path = os.pathsep.join(filter(None, [str(SDK), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def test_an_error_of_the_sdk_is_logged_with_its_place_and_one_of_the_author_is_not(tmp_path):
    app = tmp_path / "app.py"
    app.write_text(
        "import hostler_plugin as hostler\n\n\nclass Model(hostler.Model):\n"
        "    def metadata(self):\n        return hostler.ModelMetadata([], [])\n\n"
        "    def predict(self, request, inputs):\n"
        "        if request.parameter('own'):\n            raise hostler.failed('own')\n"
        "        return hostler.named(inputs, 'z')\n"
    )
    host = Host(str(app))
    with raises("failed", message="there is no tensor"):
        host.predict([])
    assert host.logs[-1][1] == 'Err FAILED: there is no tensor "z" (in predict, app.py:11)'
    lines = len(host.logs)
    with raises("failed", message="own"):
        host.predict([], parameters={"own": True})
    assert len(host.logs) == lines
