"""The module for plugin authors: the contract's types under short names, and helpers for tensors,
errors, parameters, assets, config, calls to models, state, metrics and the log.

A plugin is a module with a class `Transformer`, `Model` or `Executor` that derives from the one
here:

    import hostler_plugin as hostler

    class Model(hostler.Model):
        def metadata(self):
            spec = hostler.spec("message", "BYTES", [-1])
            return hostler.ModelMetadata([spec], [spec])

        def predict(self, request, inputs):
            return inputs

An exception in a method of such a class becomes the error `failed`, with one line that names the
exception and its place; the traceback is in the host's log. A MemoryError ends the instance.

The module imports only `struct` and what the generated `wit_world` imports, because every fresh
instance contains all modules that a component imports.
"""

from componentize_py_types import Err, Ok
from wit_world.imports import assets, logging, metrics, state, store, types
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
    Request,
    Tensor,
    TensorSpec,
)

try:
    from wit_world.imports import callables, models
except ImportError:
    callables = models = None  # The component imports no models.

from hostler_plugin import _checks, _faults
from hostler_plugin._data import elements, spec, tensor

_checks.guard(types, assets, logging, metrics, state, store, callables, models)


class Transformer:
    """Turns what an application sends into a model's inputs, and the model's outputs into an
    answer.

    Each call may run in an instance of its own, so pass data from `preprocess` to `postprocess`
    with `request.set_note`. A payload is a `Json`, `Bytes` or `Tensors`, with its `value`.
    """

    def __init_subclass__(cls):
        super().__init_subclass__()
        _faults.guard_methods(cls, _faults.TRANSFORMER)

    def metadata(self):
        """Returns the metadata for callers, or None if they should see the model's own inputs and
        outputs. Called once, at load."""
        return None

    def preprocess(self, request, input):
        """Turns a payload into a list of tensors. Called once for each request."""
        raise NotImplementedError

    def postprocess(self, request, outputs):
        """Turns a list of tensors into a payload. Called once for each response of the model."""
        raise NotImplementedError


class Model:
    """A plugin that is itself a model."""

    def __init_subclass__(cls):
        super().__init_subclass__()
        _faults.guard_methods(cls, _faults.MODEL)

    def metadata(self):
        """Returns a `ModelMetadata` of two lists of `spec`. Called once, at load."""
        raise NotImplementedError

    def predict(self, request, inputs):
        """Turns inputs, which match the metadata, into outputs. Called once for each request."""
        raise NotImplementedError


class OptionalInputs:
    """Lists inputs that a request may omit. Without it, `predict` always receives all inputs."""

    def __init_subclass__(cls):
        super().__init_subclass__()
        _faults.guard_methods(cls, _faults.OPTIONAL_INPUTS)

    def names(self):
        """Returns a list of names of inputs in the model's metadata. Called once, at load."""
        raise NotImplementedError


class Executor:
    """Decides how a model is called, for example again, twice concurrently, from a cache, or
    another model instead.

    `model` has the methods that `get_model` describes. It must not be used after the request.
    """

    def __init_subclass__(cls):
        super().__init_subclass__()
        _faults.guard_methods(cls, _faults.EXECUTOR)

    def submit(self, request, inputs, model):
        """Turns inputs into outputs, and may wait: each request has an instance of its own."""
        raise NotImplementedError

    def submit_batch(self, requests, inputs, model):
        """Returns `Ok(tensors)` or `Err(Error(...))` for each request of a batch. If it raises
        `unsupported`, as by default, the host calls `submit` for each request."""
        raise unsupported("this executor does not implement submit_batch")


# Calls to models, in blocking style: only the current request waits. `cargo xtask plugin` looks for
# `get_model` in the source to find out whether a plugin calls models.


def get_model(model, version=None):
    """Returns a model. Without a version, returns the only version or the one that the routing rule
    chooses for this request.

    It has `model()`, `version()`, `streaming()`, `call(inputs)`, which waits and returns tensors or
    raises the call's error, and `start(inputs)`, which returns an invocation. Leaving the `with`
    block of an invocation cancels it.
    """
    return _imported(models).get(model, version)


def _imported(module):
    if module is None:
        raise RuntimeError(
            "this component does not import models: build it for a world that calls models, such as "
            "calling-model-plugin"
        )
    return module


def call_within(model, inputs, seconds):
    """Calls a model and waits for at most `seconds`; after that the error is `deadline`."""
    return model.call_within(inputs, _micros(seconds))


def responses(invocation):
    """Yields the responses of a started call one after the other; raises its error."""
    while True:
        match invocation.next():
            case Ok(tensors):
                yield tensors
            case Err() as err:
                raise err
            case None:
                return


def wait_any(invocations, seconds=None):
    """Waits until one has a response or has ended; returns its index, or None after `seconds`."""
    return _imported(callables).wait_any(invocations, None if seconds is None else _micros(seconds))


def outcome(invocation):
    """Waits for the end of a call and returns its tensors or raises its error. Once for each call.
    """
    _imported(callables).wait_any([invocation], None)
    match invocation.outcome():
        case Ok(tensors):
            return tensors
        case Err() as err:
            raise err
    raise failed("the outcome of this call was already taken")


def sleep(seconds):
    """Waits for this long."""
    _imported(callables).wait_any([], _micros(seconds))


def answer(outputs):
    """Answers the request now and continues; the client does not wait further. For executors."""
    _imported(callables).answer(outputs)


def _micros(seconds):
    return max(0, round(seconds * 1e6))


# Errors: `raise hostler.invalid("age", "expected a number")`. Any other exception is `failed`.


def error(kind, message, field=None):
    """An error of any kind of the contract, such as `ErrorKind.OVERLOADED`."""
    return Err(Error(kind, message, field))


def invalid(field, message):
    """The caller's input is wrong at `field`, a path such as `items[3].name`; None for all of it.
    """
    return error(ErrorKind.INVALID_INPUT, message, field)


def not_found(message):
    """Something that the caller named does not exist."""
    return error(ErrorKind.NOT_FOUND, message)


def unsupported(message):
    """A valid request for something that is not offered."""
    return error(ErrorKind.UNSUPPORTED, message)


def failed(message):
    """An error that is not the caller's fault."""
    return error(ErrorKind.FAILED, message)


# Tensors, in addition to `tensor`, `elements` and `spec`.


def named(tensors, name):
    """Returns the tensor with this name. A missing one is not the caller's fault: `failed`."""
    for tensor in tensors:
        if tensor.name() == name:
            return tensor
    raise failed(f'there is no tensor "{name}"')


def described(tensor):
    """Formats datatype and shape for an error message: `FP32 [1,18]`."""
    shape = ",".join(str(dimension) for dimension in tensor.shape())
    return f"{tensor.datatype().name} [{shape}]"


# Request parameters. A parameter of another type is the caller's fault: the error is
# `invalid-input` with the field `parameters.<name>`.


def flag(request, name):
    """Returns a boolean parameter, or False if the request has none with this name."""
    return _parameter(request, name, "true or false", Parameter_Boolean) or False


def text(request, name):
    """Returns a string parameter, or None."""
    return _parameter(request, name, "a text", Parameter_Text)


def integer(request, name):
    """Returns an integer parameter, or None."""
    return _parameter(request, name, "a whole number", Parameter_Integer)


def number(request, name):
    """Returns a number parameter, integer or not, or None."""
    return _parameter(request, name, "a number", Parameter_Number, Parameter_Integer)


def _parameter(request, name, expected, *kinds):
    parameter = request.parameter(name)
    if parameter is None:
        return None
    if not isinstance(parameter, kinds):
        raise invalid(f"parameters.{name}", f'parameter "{name}": expected {expected}')
    return parameter.value


# Assets and config of the manifest, and the log.


def asset(name):
    """Returns the bytes of an asset. A missing asset is the operator's fault, not the caller's."""
    try:
        return assets.read(name, 0, assets.size(name))
    except Err as err:
        raise failed(f'asset "{name}": {err.value.message}') from None


def config(key):
    """Returns the value of a key, or None if the manifest does not set it."""
    try:
        return store.get(key)
    except Err as err:
        raise failed(f'config "{key}": {err.value.value}') from None


def config_number(key, default, low, high):
    """Returns the number under a key of the config, as an integer if the default is one. A value
    out of bounds is the operator's fault."""
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


# Data that the plugin keeps across requests, instances and swaps, and metrics for the operator. All
# functions of `wit/hostler.wit` are available: `hostler.state.get(key)`, `.set(key, value,
# ttl_ms)`, `.delete(key)`, `.get_tensors(key)`, `.set_tensors(key, tensors, ttl_ms)`,
# `.add(counter, delta)` and `.compare_exchange(counter, expected, new)`, which raises an `Err` of
# the current value.


def count(name, by=1):
    """Adds to `hostler_plugin_events_total{plugin, name}`."""
    metrics.count(name, by)


def gauge(name, value):
    """Sets `hostler_plugin_value{plugin, name}`."""
    metrics.set(name, value)


class Counter:
    """A value that only increases: `hostler_plugin_counter_<name>_total{plugin, ...}`. It belongs
    to the plugin: creating one that exists returns the same metric. Exceeding a limit is an error,
    as in `Gauge` and `Histogram`. Create metrics in a call, not at the top of the module, which
    runs when the plugin is built."""

    def __init__(self, name, help, labels=()):
        self._metric = metrics.Counter.create(name, help, list(labels))

    def add(self, values=(), by=1):
        """`values` are the values of the labels, in their order."""
        self._metric.add([str(value) for value in values], by)


class Gauge:
    """A value that can increase and decrease: `hostler_plugin_gauge_<name>{plugin, ...}`."""

    def __init__(self, name, help, labels=()):
        self._metric = metrics.Gauge.create(name, help, list(labels))

    def set(self, value, values=()):
        self._metric.set([str(label) for label in values], value)

    def add(self, by, values=()):
        """Adds a number, which may be negative."""
        self._metric.add([str(label) for label in values], by)


class Histogram:
    """A distribution of values: `hostler_plugin_histogram_<name>_bucket{plugin, le, ...}`,
    `..._sum`, `..._count`. Buckets are upper bounds in ascending order."""

    def __init__(self, name, help, buckets, labels=()):
        self._metric = metrics.Histogram.create(name, help, list(labels), list(buckets))

    def observe(self, value, values=()):
        self._metric.observe([str(label) for label in values], value)


def log(message, level="INFO"):
    """Writes to the host's log, at level TRACE, DEBUG, INFO, WARN, ERROR or CRITICAL. What is not a
    text is formatted with `str`."""
    if level not in logging.Level.__members__:
        known = ", ".join(logging.Level.__members__)
        raise ValueError(f"hostler.log: unknown level {level!r}; expected one of {known}")
    logging.log(logging.Level[level], "", message if isinstance(message, str) else str(message))
