"""The module for authors of streaming models, in addition to `hostler_plugin`: the role, waiting,
and calls to models.

    import asyncio
    import hostler_concurrent as concurrent
    import hostler_plugin as hostler

    class StreamingModel(concurrent.StreamingModel):
        def metadata(self):
            n = hostler.spec("n", "INT32", [1])
            return concurrent.StreamingMetadata([], [n], streaming=True)

        async def execute(self, request, inputs, responses):
            for n in range(3):
                await concurrent.sleep(0.01)
                await responses.send([hostler.tensor("n", "INT32", [1], [n])])

All requests share one instance and one thread: nothing runs in parallel, and a request that
computes without a pause blocks all others. A request can wait only for the host, that is, with the
functions of this module. Within one request, `asyncio.gather`, `asyncio.TaskGroup` and the
cancellation of tasks work as usual. Timers of asyncio are not available. Its locks, events and
queues do not wake a waiter in another request.
"""

import asyncio
import builtins

import componentize_py_async_support
from componentize_py_async_support import spawn
from componentize_py_types import Err
from hostler_plugin import _checks, _faults, log
from wit_world import exports
from wit_world.exports.streaming_model import StreamingMetadata
from wit_world.imports import clock, models

_checks.guard(clock, models)


class StreamingModel(exports.StreamingModel):
    """A model whose requests run concurrently in one long-lived instance, each with 0..n responses
    or with exactly one. Data in `self` lives as long as the instance.

    An exception in `execute` ends only the responses of its own request. An error of
    `hostler_plugin` is returned as it is; any other exception becomes `failed` with one line that
    names the exception and its place, and its traceback is written to the host's log. An exception
    in `ready` means that the model is not ready.
    """

    def __init_subclass__(cls):
        super().__init_subclass__()
        _faults.guard_methods(cls, _GUARDS)

    async def initialize(self):
        """Called once for each instance. An error means that the plugin cannot be used."""

    def metadata(self):
        """Returns a `StreamingMetadata`. Called once, at load, after `initialize`."""
        raise NotImplementedError

    async def execute(self, request, inputs, responses):
        """Called for each request, with inputs that match the metadata, while earlier ones may
        still wait. `await responses.send(tensors)` sends one response; returning ends the
        responses."""
        raise NotImplementedError

    def ready(self):
        """Returns whether the model can serve requests now."""
        return True

    async def finalize(self):
        """Called once for each instance that ends normally, after its last request."""


async def sleep(seconds):
    """Waits for this long. Fails early if the request that it belongs to has ended."""
    await _host(clock.sleep(_micros(seconds)))


def model(name, version=None):
    """Returns a model for the current request. Without a version, returns the only version or the
    one that the routing rule chooses for this request."""
    return Model(models.get(name, version))


class Model:
    """A model that can be called until the request ends."""

    def __init__(self, callable):
        self._callable = callable

    def model(self):
        return self._callable.model()

    def version(self):
        return self._callable.version()

    def is_streaming(self):
        """Returns whether the model has 0..n responses instead of exactly one."""
        return self._callable.streaming()

    async def call(self, inputs, timeout=None):
        """Calls the model and returns its one response, a list of tensors. Waits for at most
        `timeout` seconds, if given."""
        return await _host(self._callable.call(inputs, _micros(timeout)))

    def stream(self, inputs, timeout=None):
        """Starts a call and returns an asynchronous iterator over its responses. An error such as
        `overloaded`, raised immediately, means that the call was not admitted."""
        return _responses(self._callable.start(inputs, _micros(timeout)))


async def _responses(invocation):
    # The invocation is not closed here: an abandoned call to `next` may use it until it has ended.
    while (response := await _host(invocation.next())) is not None:
        if isinstance(response, Err):
            raise response
        yield response.value


class Responses:
    """The destination of the responses to a request."""

    def __init__(self, sink):
        self._sink = sink

    async def send(self, outputs):
        """Sends one response. Waits while the client is slow to read. Fails if the request has
        ended. The tensors belong to the host as soon as this is called."""
        await _host(self._sink.send(_faults.sent_tensors(outputs)))


async def _host(call):
    """Awaits a host call in a task of its own. If the waiter is cancelled, the host call continues
    until it ends: it cannot be cancelled, and the component's task must not end before it."""
    outcome = asyncio.get_running_loop().create_future()

    async def run():
        try:
            value = await call
        except Exception as error:
            if not outcome.done():
                outcome.set_exception(error)
        else:
            if not outcome.done():
                outcome.set_result(value)

    spawn(run())
    return await outcome


# Python 3.10, which unit tests may use, has no exception groups.
_GROUP = getattr(builtins, "BaseExceptionGroup", ())


def _guarded(name, function, arguments=None):
    """Wraps a function so that no exception reaches componentize-py, which would end the instance
    and all its requests. `arguments` converts what the host passes."""

    async def guarded(self, *given):
        try:
            running = function(self, *(arguments(given) if arguments else given))
            if not hasattr(running, "__await__"):
                raise TypeError(f"{type(self).__name__}.{name} must be defined with `async def`, without `yield`")
            await running
        except GeneratorExit:
            raise
        except BaseException as error:
            if getattr(error, "is_trap", False):
                raise  # The stand-in for the host in `hostler_testing` ends the instance.
            first = error
            while isinstance(first, _GROUP):
                first = first.exceptions[0]
            if isinstance(first, Err):
                if (valid := _faults.valid_error(first)) is first:
                    raise first from None
                raise valid from first
            raise _faults.report(first, function, group=error) from error

    return _faults._as_method(guarded, function)


def _execute(name, function):
    def arguments(given):
        request, inputs, sink = given
        return request, inputs, sink if isinstance(sink, Responses) else Responses(sink)

    return _guarded(name, function, arguments)


def _finalize(name, function):
    async def finalize(self):
        try:
            await function(self)
        except BaseException as error:
            if getattr(error, "is_trap", False):
                raise
            _faults.report(error, function)

    return _faults._as_method(finalize, function)


_GUARDS = {
    "initialize": _guarded,
    "metadata": _faults.infallible(_faults.returned_metadata(StreamingMetadata)),
    "execute": _execute,
    "ready": _faults.condition,
    "finalize": _finalize,
}


def _micros(seconds):
    return None if seconds is None else min(max(0, round(seconds * 1e6)), 2**63)


def _no_timers(*arguments, **options):
    raise NotImplementedError("asyncio timers are not available: use hostler_concurrent.sleep, or the timeout of a call")


def _unhandled(context):
    """Logs the exception of a task that is never awaited, instead of ending the instance."""
    error = context.get("exception")
    log(f"{context.get('message', 'a task failed')}: {error!r}", "WARN")


_loop = componentize_py_async_support._loop
_loop.call_later = _loop.call_at = _loop.time = _no_timers
_loop.call_exception_handler = _unhandled
