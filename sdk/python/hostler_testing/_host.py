"""The host of a test: loads a plugin and calls it."""

import contextlib
import contextvars
import importlib.util
import json
import os
import sys
from types import ModuleType

from componentize_py_types import Err, Ok

from ._environment import Environment, make_current
from ._faults import ContractError, Trap
from ._models import Model, Target
from ._request import RequestData
from ._tensors import check_inputs, check_outputs, move, refused, shown

_ROLES = ("Transformer", "Model", "Executor", "StreamingModel")
_async_request = contextvars.ContextVar("request", default=None)


class Host(Environment):
    """A host with one plugin.

    `app` is the path of `app.py`, or a module that was imported, or a class of a role. A path is
    loaded again for each `Host`, as for a fresh instance. `config` has texts, `assets` bytes,
    `models` a function or a `Model` by name (`"name"` or `"name:version"`), and `http` is a function
    from an `HttpRequest` to a status and a body, an `HttpResponse`, or the body alone.

    The functions that call the plugin take the fields of `RequestData` as keywords (`parameters`,
    `note`, `seconds`, ...), or a whole one as `request`. `note` is the note of the last request.
    """

    def __init__(self, app="app.py", *, config=None, assets=None, models=None, http=None):
        models = {name: as_model(name, model) for name, model in (models or {}).items()}
        super().__init__(config, assets, models, http)
        self.note = b""
        self.is_async = False
        self.module = _load(app)
        self.role, self._class = _role(self.module)
        self.is_async = self.role == "StreamingModel"
        self._instance = self._metadata = None

    @property
    def plugin(self):
        """The instance of the plugin's class, made at the first use."""
        if self._instance is None:
            make_current(self)
            self._instance = self._class()
            if self.is_async and hasattr(self._instance, "initialize"):
                self._run(self._instance.initialize())
        return self._instance

    def active_request(self):
        return _async_request.get() if self.is_async else self.request

    # The functions of the roles

    def metadata(self):
        """Calls `metadata` and checks what it returns."""
        plugin = self.plugin
        make_current(self)
        metadata = plugin.metadata()
        if metadata is None and self.role == "Transformer":
            return None
        from wit_world.exports.streaming_model import StreamingMetadata
        from wit_world.imports.types import ModelMetadata

        wanted = StreamingMetadata if self.is_async else ModelMetadata
        if not isinstance(metadata, wanted):
            raise Trap(f"{self.role}.metadata must return {wanted.__name__}, not {type(metadata).__name__}")
        for specs in (metadata.inputs, metadata.outputs):
            names = [spec.name for spec in specs]
            if repeated := [name for name in names if names.count(name) > 1]:
                raise ContractError(f'{self.role}.metadata names "{repeated[0]}" twice')
        self._metadata = metadata
        return metadata

    def names(self):
        """Returns the optional inputs of a model."""
        optional = getattr(self.module, "OptionalInputs", None)
        if optional is None:
            return []
        make_current(self)
        names = optional().names()
        known = [spec.name for spec in (self._metadata or self.metadata()).inputs]
        for name in names:
            if name not in known:
                raise ContractError(f'OptionalInputs.names has "{name}", which is no input of the metadata')
        return names

    def predict(self, inputs, **request):
        """Calls `predict` of a model with a list of tensors, or with a dict of values by name.
        Returns a list of tensors."""
        metadata = self._of("Model", "predict")
        data = self._inputs(inputs, metadata.inputs)
        check_inputs(metadata.inputs, data, self.names())
        outputs = self._call("predict", _request(request), data)
        return self._outputs(outputs, metadata.outputs, "Model.predict")

    def preprocess(self, payload, *, inputs=None, **request):
        """Calls `preprocess` of a transformer. A str is taken as JSON text, bytes as bytes, a list
        of tensors as tensors, and any other value is converted to JSON. `inputs`, a list of `spec`,
        are the inputs of the model, if they should be checked."""
        self._of("Transformer", "preprocess")
        returned = self._call("preprocess", _request(request), payload)
        outputs = move(returned, "what Transformer.preprocess returns")
        if inputs is not None:
            try:
                check_inputs(inputs, outputs)
            except Err as error:
                message = f"Transformer.preprocess returned tensors that do not fit: {error.value.message}"
                raise ContractError(message) from None
        return _tensors(outputs)

    def postprocess(self, outputs, **request):
        """Calls `postprocess` of a transformer with tensors. Returns the value of the JSON, a
        `Blob`, or a list of tensors."""
        self._of("Transformer", "postprocess")
        payload = self._call("postprocess", _request(request), _data(outputs))
        kind = type(payload).__name__
        if kind == "Payload_Json":
            try:
                return json.loads(payload.value, parse_constant=_no_constant)
            except (ValueError, TypeError) as error:
                raise ContractError(f"Transformer.postprocess returned a text that is not JSON: {error}") from None
        if kind == "Payload_Tensors":
            return _tensors(move(payload.value, "the Tensors that Transformer.postprocess returns"))
        if kind == "Payload_Bytes":
            return payload.value
        raise Trap(f"Transformer.postprocess must return a Json, Bytes or Tensors, not {type(payload).__name__}")

    def transform(self, payload, model, **request):
        """Calls `preprocess`, the model (a function or a `Model`) and `postprocess`, with one
        request."""
        request, model = _request(request), as_model("model", model)
        inputs = self.preprocess(payload, request=request, inputs=model.inputs)
        [(_, outcome)] = model.respond(_data(inputs), None)
        if isinstance(outcome, Err):
            raise outcome
        return self.postprocess(_tensors(outcome.value), request=request)

    def submit(self, inputs, model, **request):
        """Calls `submit` of an executor. `model`, a function or a `Model`, is its inner model.
        Returns what the client receives: the tensors that the executor returned or answered with."""
        self._of("Executor", "submit")
        request = _request(request)
        self.answered, self.may_answer = None, True
        try:
            returned = self._call("submit", request, _data(inputs), as_model(request.model, model))
        except Err:
            if self.answered is None:
                raise
            return _tensors(self.answered)
        finally:
            self.may_answer = False
        moved = move(returned, "what Executor.submit returns")
        return _tensors(moved if self.answered is None else self.answered)

    def submit_batch(self, batch, model, **request):
        """Calls `submit_batch` of an executor with a list of inputs for each request. Returns for
        each a list of tensors, or its `Err`."""
        self._of("Executor", "submit_batch")
        shared = _request(request)
        requests = [RequestData(**{**_fields(shared), "id": f"{shared.id}/{index}"}) for index in range(len(batch))]
        inputs = [_data(one) for one in batch]
        returned = self._call("submit_batch", requests, inputs, as_model(shared.model, model))
        if type(returned) is not list or len(returned) != len(batch):
            raise Trap(f"Executor.submit_batch must return a list of {len(batch)} items")
        results = []
        for index, item in enumerate(returned):
            if not isinstance(item, (Ok, Err)):
                raise Trap(f"Executor.submit_batch: item {index} must be an Ok or an Err, not {type(item).__name__}")
            where = f"item {index} of Executor.submit_batch"
            results.append(item if isinstance(item, Err) else _tensors(move(item.value, where)))
        return results

    def execute(self, inputs=(), **request):
        """Calls `execute` of a streaming model. Returns its responses, a list of lists of
        tensors."""
        [outcome] = self.execute_all([inputs], **request)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def execute_all(self, batch, **request):
        """Runs several requests at once in one instance. Returns for each its responses, or its
        `Err`."""
        metadata = self._of("StreamingModel", "execute")
        shared, plugin, runs = _request(request), self.plugin, []
        make_current(self)
        for index, inputs in enumerate(batch):
            data = self._inputs(inputs, metadata.inputs)
            check_inputs(metadata.inputs, data)
            one = shared if len(batch) == 1 else RequestData(**{**_fields(shared), "id": f"{shared.id}-{index}"})
            runs.append(Run(self, plugin, one, data, metadata))

        async def every():
            import asyncio

            return await asyncio.gather(*(run.run() for run in runs))

        outcomes = self._run(every())
        self.note = runs[-1].request.note if runs else self.note
        return outcomes

    def ready(self):
        make_current(self)
        ready = self.plugin.ready()
        if not isinstance(ready, bool):
            raise Trap(f"StreamingModel.ready must return a bool, not {type(ready).__name__}")
        return ready

    def finalize(self):
        """Ends the instance of a streaming model."""
        if self._instance is not None:
            self._run(self._instance.finalize())
            self._instance = None

    # How they are called

    def _of(self, role, function):
        if self.role != role:
            raise TypeError(f"cannot call {function}: the plugin is a {self.role}, and {function} is of {role}")
        return None if role in ("Transformer", "Executor") else self._metadata or self.metadata()

    def _run(self, coroutine):
        from componentize_py_async_support import _loop

        make_current(self)
        return _loop.run(coroutine, self)

    def _call(self, function, request, *arguments):
        """Calls a blocking function with handles that end with the call."""
        from wit_world.imports import callables, types

        plugin = self.plugin
        make_current(self)
        requests = request if isinstance(request, list) else [request]
        for one in requests:
            one.begin(self)
        handles = [types.Request(one) for one in requests]
        passed = []
        for argument in arguments:
            if isinstance(argument, Model):
                argument = callables.Callable(Target(self, argument, requests[0], False))
                handles.append(argument)
            elif function == "preprocess":
                argument = _payload(argument)
            elif function == "submit_batch":
                argument = [_tensors(one) for one in argument]
            else:
                argument = _tensors(argument)
            passed.append(argument)
        self.request = requests[0]
        given = handles[: len(requests)]
        try:
            return getattr(plugin, function)(given if isinstance(request, list) else given[0], *passed)
        except Err as error:
            raise _contract_error(error) from error.__cause__
        except Exception as error:
            raise Trap(f"{self.role}.{function} raised {type(error).__name__}: {error}") from error
        finally:
            self.request, self.note = None, requests[-1].note
            for one in requests:
                one.end()
            for handle in handles:
                handle.__dict__.pop("handle", None)

    def _inputs(self, inputs, specs):
        """Returns the data of tensors, made from values if they are a dict."""
        if not isinstance(inputs, dict):
            return _data(inputs)
        import hostler_plugin

        by_name, tensors = {spec.name: spec for spec in specs}, []
        for name, value in inputs.items():
            if name not in by_name:
                raise refused(f'no input "{name}"; inputs: {", ".join(by_name)}', field=name)
            spec = by_name[name]
            shape, flat = _nested(value)
            tensors.append(hostler_plugin.tensor(name, spec.datatype, shape, flat))
        return _data(tensors)

    def _outputs(self, returned, specs, where):
        outputs = move(returned, f"what {where} returns")
        answers = [data for model in self.models.values() for data in model.made]
        check_outputs(specs, outputs, where, answers)
        return _tensors(outputs)


class Run:
    """One request in a streaming model, and the destination of its responses."""

    def __init__(self, host, plugin, request, inputs, metadata):
        self.host, self.plugin, self.request, self.inputs = host, plugin, request, inputs
        self.metadata, self.responses = metadata, []

    async def run(self):
        from wit_world.imports.sinks import Sink
        from wit_world.imports.types import Request

        self.request.begin(self.host)
        _async_request.set(self.request)
        handles = [Request(self.request), Sink(self)]
        try:
            await self.plugin.execute(handles[0], _tensors(self.inputs), handles[1])
            if not self.metadata.streaming and len(self.responses) != 1:
                raise ContractError(
                    f"StreamingModel.execute sent {len(self.responses)} responses; its metadata say exactly one"
                )
            return self.responses
        except Err as error:
            return _contract_error(error)
        finally:
            self.request.end()
            for handle in handles:
                handle.__dict__.pop("handle", None)

    async def send(self, tensors):
        outputs = move(tensors, "a response")
        if not self.metadata.streaming and self.responses:
            raise refused("a model that is not streaming has exactly one response", "UNSUPPORTED")
        await self.host.wait_async(self.host.now, self.request)
        answers = [data for model in self.host.models.values() for data in model.made]
        check_outputs(self.metadata.outputs, outputs, "StreamingModel.execute", answers)
        self.responses.append(_tensors(outputs))


def as_model(name, model):
    """Returns a `Model` for a function, or the `Model` itself, with its name."""
    if not isinstance(model, Model):
        model = Model(model)
    if model.name is None:
        model.name = name.rpartition(":")[0] or name
        if ":" in name:
            model.version = name.rpartition(":")[2]
    return model


def values(tensors):
    """Returns the elements of tensors by their names, as flat lists."""
    import hostler_plugin

    return {tensor.name(): hostler_plugin.elements(tensor) for tensor in tensors}


@contextlib.contextmanager
def raises(kind, *, field=None, message=None):
    """Expects an error of the contract: its kind (`"invalid-input"`), and if given its field and a
    part of its message. The value of the `with` statement gets the attribute `error`."""
    caught = _Caught()
    try:
        yield caught
    except Err as raised:
        error = caught.error = raised.value
        found = getattr(getattr(error, "kind", None), "name", "").lower().replace("_", "-")
        if found != kind or (field is not None and error.field != field) or (message or "") not in error.message:
            wanted = {"kind": kind, "field": field, "message": message}
            raise AssertionError(f"expected {wanted}, got {found}: {error}") from raised
        return
    raise AssertionError(f"expected the error {kind}, but the call succeeded")


class _Caught:
    error = None


def _load(app):
    if not isinstance(app, (str, os.PathLike)):
        return app
    path = os.path.abspath(app)
    if os.path.isdir(path):
        path = os.path.join(path, "app.py")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"cannot load the plugin {path}: it does not exist")
    folder, name = os.path.dirname(path), os.path.splitext(os.path.basename(path))[0]
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _role(app):
    if isinstance(app, type):
        names = [base.__name__ for base in app.__mro__]
        role = next((name for name in names if name in _ROLES), None)
        if role is None:
            raise TypeError(f"{app.__name__} must derive from one of {', '.join(_ROLES)} of the SDK")
        return role, app
    found = [role for role in _ROLES if isinstance(vars(app).get(role), type)]
    if len(found) != 1:
        name = getattr(app, "__name__", app) if isinstance(app, ModuleType) else app
        raise TypeError(f"{name} must define exactly one class of {', '.join(_ROLES)}; it defines {found or 'none'}")
    return found[0], getattr(app, found[0])


def _request(options):
    return options["request"] if "request" in options else RequestData(**options)


def _fields(request):
    return {name: getattr(request, name) for name in RequestData.__dataclass_fields__}


def _payload(value):
    from wit_world.imports import types

    if isinstance(value, (types.Payload_Json, types.Payload_Bytes)):
        return value
    if isinstance(value, types.Payload_Tensors):
        return types.Payload_Tensors(_tensors(_data(value.value)))
    if isinstance(value, types.Blob):
        return types.Payload_Bytes(value)
    if isinstance(value, bytes):
        return types.Payload_Bytes(types.Blob("application/octet-stream", value))
    if isinstance(value, list) and value and all(isinstance(one, types.Tensor) for one in value):
        return types.Payload_Tensors(_tensors(_data(value)))
    return types.Payload_Json(value if isinstance(value, str) else json.dumps(value))


def _no_constant(text):
    raise ValueError(f"{text} is not JSON")


def _nested(value):
    if not isinstance(value, (list, tuple)):
        return [], [value]
    parts = [_nested(one) for one in value]
    shapes = [shape for shape, _ in parts]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"the lists must have equal lengths, got the shapes {', '.join(map(shown, shapes))}")
    return [len(value), *(shapes[0] if shapes else [])], [one for _, flat in parts for one in flat]


def _data(tensors):
    """Returns the data of the test's own tensors, which stay valid."""
    return [tensor._get() if hasattr(tensor, "_get") else tensor for tensor in tensors]


def _tensors(data):
    from wit_world.imports.types import Tensor

    return [Tensor(one) for one in data]


def _contract_error(error):
    """Checks that an `Err` holds an error of the contract: any other value is a trap."""
    from wit_world.imports.types import Error, ErrorKind

    value = error.value
    valid = isinstance(value, Error) and isinstance(value.kind, ErrorKind) and isinstance(value.message, str)
    if not valid or not (value.field is None or isinstance(value.field, str)):
        raise Trap(f"{value!r} is not an error of the contract") from error
    return error
