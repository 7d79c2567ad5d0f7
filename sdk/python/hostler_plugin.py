"""What plugin authors import: the contract's types under short names, and helpers for tensors, errors,
parameters, assets, config, calls to models, state, metrics and the log.

A plugin is a module with a class `Transformer`, `Model` or `Executor` that derives from the one here:

    import hostler_plugin as hostler

    class Model(hostler.Model):
        def metadata(self):
            spec = hostler.spec("message", "BYTES", [-1])
            return hostler.ModelMetadata([spec], [spec])

        def predict(self, request, inputs):
            return inputs

It imports nothing but `struct`: what a component imports, every fresh instance carries.
"""

import struct

from componentize_py_types import Err, Ok
from wit_world.imports import assets, logging, metrics, state, store
from wit_world.imports.types import (
    Blob,
    Datatype,
    Error,
    ErrorKind,
    ModelMetadata,
    Parameter_Boolean,
    Parameter_Integer,
    Parameter_Number,
    Parameter_Text,
    Payload_Bytes as Bytes,
    Payload_Json as Json,
    Payload_Tensors as Tensors,
    Tensor,
    TensorSpec,
)

try:
    from wit_world.imports import callables, models
except ImportError:
    callables = models = None  # It calls no models.


class Transformer:
    """Turns what an application sends into a model's inputs, and its outputs into an answer.

    Each call may run in an instance of its own: what `postprocess` must know of `preprocess` goes
    through `request.set_note`. A payload is a `Json`, `Bytes` or `Tensors`, with its `value`.
    """

    def metadata(self):
        """Called once, at load: None if callers should see the model's own inputs and outputs."""
        return None

    def preprocess(self, request, input):
        """Called once for each request: a payload to a list of tensors."""
        raise NotImplementedError

    def postprocess(self, request, outputs):
        """Called once for each response of the model: a list of tensors to a payload."""
        raise NotImplementedError


class Model:
    """Is a model itself."""

    def metadata(self):
        """Called once, at load: a `ModelMetadata` of two lists of `spec`."""
        raise NotImplementedError

    def predict(self, request, inputs):
        """Called once for each request, with inputs that fit the metadata: tensors to tensors."""
        raise NotImplementedError


class OptionalInputs:
    """Beside a `Model`: the inputs that a request may leave out. Without it `predict` always gets all of them."""

    def names(self):
        """Called once, at load: a list of names of inputs in the model's metadata."""
        raise NotImplementedError


class Executor:
    """Decides how a model is called: again, twice at once, from a cache, another one instead.

    `model` is what `get_model` gives as well; see there. It is of no use after the request.
    """

    def submit(self, request, inputs, model):
        """Called once for each request: tensors to tensors. It may wait; each request has an instance."""
        raise NotImplementedError

    def submit_batch(self, requests, inputs, model):
        """Called once for each batch: a list of `Ok(tensors)` or `Err(Error(...))`, one for each request.
        The error `unsupported`, the default, makes the host call `submit` for each."""
        raise unsupported("batches are called one by one")


# Calls to models, in blocking style: only this request waits. A source that calls models names `get_model`, by
# which `cargo xtask plugin` knows that it needs them.


def get_model(model, version=None):
    """A model; without a version the only one, or what the routing rule gives this request.

    It has `model()`, `version()`, `streaming()`, `call(inputs)`, which waits and gives tensors or raises the
    call's error, and `start(inputs)`, which gives an invocation. Leaving its `with` block cancels it.
    """
    return models.get(model, version)


def call_within(model, inputs, seconds):
    """Calls a model and waits for that long at most; then the error is `deadline`."""
    return model.call_within(inputs, _micros(seconds))


def responses(invocation):
    """The responses of a started call, one after the other; an error is raised."""
    while True:
        match invocation.next():
            case Ok(tensors):
                yield tensors
            case Err() as err:
                raise err
            case None:
                return


def wait_any(invocations, seconds=None):
    """Waits until one of them has a response or has ended: its place in the list; None after that many seconds."""
    return callables.wait_any(invocations, None if seconds is None else _micros(seconds))


def outcome(invocation):
    """Waits for the end of a call: its tensors, or its error is raised. Once for each call."""
    callables.wait_any([invocation], None)
    match invocation.outcome():
        case Ok(tensors):
            return tensors
        case Err() as err:
            raise err
    raise failed("the outcome of this call was taken before")


def sleep(seconds):
    """Waits for that long."""
    callables.wait_any([], _micros(seconds))


def answer(outputs):
    """Answers the request now, and goes on: nobody waits for what comes after this. For executors."""
    callables.answer(outputs)


def _micros(seconds):
    return max(0, round(seconds * 1e6))


# Errors: `raise hostler.invalid("age", "expected a number")`. Any other exception is a trap.


def error(kind, message, field=None):
    """An error of any kind of the contract, such as `ErrorKind.OVERLOADED`."""
    return Err(Error(kind, message, field))


def invalid(field, message):
    """The caller's input is wrong at `field`, a path such as `items[3].name`; None if all of it is."""
    return error(ErrorKind.INVALID_INPUT, message, field)


def not_found(message):
    """Something that the caller named does not exist."""
    return error(ErrorKind.NOT_FOUND, message)


def unsupported(message):
    """A valid request for something that is not offered."""
    return error(ErrorKind.UNSUPPORTED, message)


def failed(message):
    """Not the caller's fault."""
    return error(ErrorKind.FAILED, message)


# Tensors: the datatypes are named as the Open Inference Protocol names them.

_FORMATS = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h",
    "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip


def tensor(name, datatype, shape, elements):
    """A tensor of a flat list of numbers, booleans, or (`BYTES`) strings and bytes."""
    if datatype == "BYTES":
        data = b"".join(_element(element) for element in elements)
    else:
        data = struct.pack(f"<{len(elements)}{_FORMATS[datatype]}", *elements)
    return Tensor.create(name, Datatype[datatype], shape, data)


def elements(tensor):
    """The elements of a tensor as a flat list; of `BYTES`, as bytes."""
    datatype = tensor.datatype().name
    data = tensor.read(0, tensor.byte_length())
    if datatype == "BYTES":
        return _split(data)
    size = struct.calcsize(_FORMATS[datatype])
    return list(struct.unpack(f"<{len(data) // size}{_FORMATS[datatype]}", data))


def spec(name, datatype, shape):
    """Name, datatype and shape of an input or output, -1 where a dimension is free."""
    return TensorSpec(name, Datatype[datatype], shape)


def named(tensors, name):
    """The tensor of that name among a model's outputs. One that is missing is not the caller's fault."""
    for tensor in tensors:
        if tensor.name() == name:
            return tensor
    raise failed(f'there is no tensor "{name}"')


def described(tensor):
    """Datatype and shape as an error names them: `FP32 [1,18]`."""
    shape = ",".join(str(dimension) for dimension in tensor.shape())
    return f"{tensor.datatype().name} [{shape}]"


def _element(element):
    data = element.encode() if isinstance(element, str) else element
    return struct.pack("<I", len(data)) + data


def _split(data):
    result, at = [], 0
    while at + 4 <= len(data):
        end = at + 4 + struct.unpack_from("<I", data, at)[0]
        result.append(data[at + 4 : end])
        at = end
    return result


# Parameters of a request. One of another type is the caller's fault: its field is `parameters.<name>`.


def flag(request, name):
    """A boolean parameter, False if the request has none of that name."""
    return _parameter(request, name, "true or false", Parameter_Boolean) or False


def text(request, name):
    """A parameter that is a text, or None."""
    return _parameter(request, name, "a text", Parameter_Text)


def integer(request, name):
    """A parameter that is a whole number, or None."""
    return _parameter(request, name, "a whole number", Parameter_Integer)


def number(request, name):
    """A parameter that is a number, whole or not, or None."""
    return _parameter(request, name, "a number", Parameter_Number, Parameter_Integer)


def _parameter(request, name, expected, *kinds):
    parameter = request.parameter(name)
    if parameter is None:
        return None
    if not isinstance(parameter, kinds):
        raise invalid(f"parameters.{name}", f'parameter "{name}": expected {expected}')
    return parameter.value


# What the manifest gives the plugin, and the log.


def asset(name):
    """The bytes of an asset. One that is not there is the operator's fault, not the caller's."""
    try:
        return assets.read(name, 0, assets.size(name))
    except Err as err:
        raise failed(f'asset "{name}": {err.value.message}') from None


def config(key):
    """The value of a key, None if the manifest has none."""
    try:
        return store.get(key)
    except Err as err:
        raise failed(f'config "{key}": {err.value.value}') from None


def config_number(key, default, low, high):
    """A number under a key of the config, whole if the default is. One outside of its bounds is the
    operator's fault."""
    value = config(key)
    if value is None:
        return default
    try:
        parsed = type(default)(value)
    except ValueError:
        parsed = None
    if parsed is None or not low <= parsed <= high:
        raise failed(f'config "{key}": expected a number from {low} to {high}, got "{value}"')
    return parsed


# What the plugin remembers across requests, instances and swaps, and numbers for the operator. All of
# `wit/hostler.wit` is there: `hostler.state.get(key)`, `.set(key, value, ttl_ms)`, `.delete(key)`,
# `.get_tensors(key)`, `.set_tensors(key, tensors, ttl_ms)`, `.add(counter, delta)` and
# `.compare_exchange(counter, expected, new)`, which raises an `Err` of the value that is there.


def count(name, by=1):
    """Adds to `hostler_plugin_events_total{plugin, name}`."""
    metrics.count(name, by)


def gauge(name, value):
    """Sets `hostler_plugin_value{plugin, name}`."""
    metrics.set(name, value)


class Counter:
    """What only grows: `hostler_plugin_counter_<name>_total{plugin, ...}`. It belongs to the plugin: whoever makes one of
    the same name gets the same one. Whatever is too much is an error, as in `Gauge` and `Histogram`. Make it in a
    call, not at the top of the module: that runs when the plugin is built."""

    def __init__(self, name, help, labels=()):
        self._metric = metrics.Counter.create(name, help, list(labels))

    def add(self, values=(), by=1):
        """`values` are those of the labels, in their order."""
        self._metric.add([str(value) for value in values], by)


class Gauge:
    """What goes up and down: `hostler_plugin_gauge_<name>{plugin, ...}`."""

    def __init__(self, name, help, labels=()):
        self._metric = metrics.Gauge.create(name, help, list(labels))

    def set(self, value, values=()):
        self._metric.set([str(label) for label in values], value)

    def add(self, by, values=()):
        """Adds a number, which may be negative."""
        self._metric.add([str(label) for label in values], by)


class Histogram:
    """How values are spread: `hostler_plugin_histogram_<name>_bucket{plugin, le, ...}`, `..._sum`, `..._count`. Buckets
    are upper bounds, rising."""

    def __init__(self, name, help, buckets, labels=()):
        self._metric = metrics.Histogram.create(name, help, list(labels), list(buckets))

    def observe(self, value, values=()):
        self._metric.observe([str(label) for label in values], value)


def log(message, level="INFO"):
    """A line for the host's log: DEBUG, INFO, WARN or ERROR."""
    logging.log(logging.Level[level], "", message)
