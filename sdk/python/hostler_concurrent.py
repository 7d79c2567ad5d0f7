"""What authors of streaming models import beside `hostler_plugin`: the role, waiting, and calls to models.

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

All requests share one instance and one thread: nothing runs in parallel, and one that computes keeps all
others waiting. A request waits for the host only, that is for what this module gives. `asyncio.gather`,
`asyncio.TaskGroup` and cancelling tasks work as ever within one request. Timers of asyncio are not there, and its
locks, events and queues wake nobody in another request.
"""

import asyncio
import traceback

from componentize_py_async_support import spawn
from componentize_py_types import Err
from hostler_plugin import Error, failed, log
from wit_world import exports
from wit_world.exports.streaming_model import StreamingMetadata
from wit_world.imports import clock, models
from wit_world.imports.types import Tensor


class StreamingModel(exports.StreamingModel):
    """Is a model whose requests wait side by side in one long-lived instance, each with 0..n responses or
    with exactly one. What is in `self` lives as long as the instance does.

    Any exception of `execute` ends the responses of its own request only: an error of `hostler_plugin` as it
    is, others as `failed` with their text, and with their traceback in the host's log.
    """

    def __init_subclass__(cls):
        super().__init_subclass__()
        guards = {"initialize": _guarded, "execute": _execute, "finalize": _finalize}
        for name, guard in guards.items():
            if name in vars(cls):
                setattr(cls, name, guard(vars(cls)[name]))

    async def initialize(self):
        """Called once for each instance. An error means that the plugin cannot be used."""

    def metadata(self):
        """Called once, at load, after `initialize`: a `StreamingMetadata`."""
        raise NotImplementedError

    async def execute(self, request, inputs, responses):
        """Called for each request, with inputs that fit the metadata, while earlier ones may still wait.
        `await responses.send(tensors)` sends one response; returning ends them."""
        raise NotImplementedError

    def ready(self):
        """Whether requests make sense now."""
        return True

    async def finalize(self):
        """Called once for each instance that ends in order, after its last request."""


async def sleep(seconds):
    """Waits for that long. Fails early when nobody waits any more for the request that it is called for."""
    await _host(clock.sleep(_micros(seconds)))


def model(name, version=None):
    """A model that can be called, for the request that it is asked for; without a version the only one, or
    what the routing rule gives this request."""
    return Model(models.get(name, version))


class Model:
    """A model that can be called, until the request ends."""

    def __init__(self, callable):
        self._callable = callable

    def model(self):
        return self._callable.model()

    def version(self):
        return self._callable.version()

    def is_streaming(self):
        """Whether it has 0..n responses, not exactly one."""
        return self._callable.streaming()

    async def call(self, inputs, timeout=None):
        """Waits for the one response, for `timeout` seconds at most if given: a list of tensors."""
        return await _host(self._callable.call(_tensors(inputs), _micros(timeout)))

    def stream(self, inputs, timeout=None):
        """Begins a call: an asynchronous iterator over its responses. An error such as `overloaded`, raised
        at once, says that it was not admitted."""
        return _responses(self._callable.start(_tensors(inputs), _micros(timeout)))


async def _responses(invocation):
    # Not closed here: it may be in use until a call that was left behind has ended.
    while (response := await _host(invocation.next())) is not None:
        if isinstance(response, Err):
            raise response
        yield response.value


class Responses:
    """Where the responses to a request go."""

    def __init__(self, sink):
        self._sink = sink

    async def send(self, outputs):
        """Sends one response; waits while the caller is behind. Fails when nobody waits any more."""
        await _host(self._sink.send(_tensors(outputs)))


async def _host(call):
    """Waits for the host in a task of its own. If the waiter is cancelled, the call ends by itself: it cannot
    be taken back, and the task of the component must not end before it has."""
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


def _guarded(function):
    """An exception that gets as far as componentize-py ends the instance, and all its requests."""

    async def guarded(*arguments):
        try:
            return await function(*arguments)
        except BaseException as error:
            first = error
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            if isinstance(first, Err) and isinstance(first.value, Error):
                raise first from None
            traceback.print_exception(error)
            text = str(first)
            raise failed(f"{type(first).__name__}: {text}" if text else type(first).__name__) from None

    return guarded


def _execute(function):
    async def execute(self, request, inputs, sink):
        await function(self, request, inputs, Responses(sink))

    return _guarded(execute)


def _finalize(function):
    async def finalize(self):
        try:
            await function(self)
        except BaseException as error:
            traceback.print_exception(error)

    return finalize


def _tensors(values):
    """Looked at here, so that anything else is an exception of Python with a text that says what was wrong."""
    values = list(values)
    for value in values:
        if not isinstance(value, Tensor):
            raise TypeError(f"expected a list of tensors, found {type(value).__name__} in it")
    return values


def _micros(seconds):
    return None if seconds is None else min(max(0, round(seconds * 1e6)), 2**63)


def _no_timers(*arguments, **options):
    raise NotImplementedError("timers of asyncio: use hostler_concurrent.sleep, or the timeout of a call")


def _unhandled(context):
    """What a task that nobody awaits has raised is no reason to end the instance."""
    error = context.get("exception")
    log(f"{context.get('message', 'a task failed')}: {error!r}", "WARN")


_loop = asyncio.get_event_loop()
_loop.call_later = _loop.call_at = _loop.time = _no_timers
_loop.call_exception_handler = _unhandled
