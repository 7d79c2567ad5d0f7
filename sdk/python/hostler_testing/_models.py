"""Models that a plugin calls, answered by functions of the test."""

from dataclasses import dataclass
from typing import Optional

from componentize_py_types import Err, Ok

from ._faults import ModelFault, Trap
from ._tensors import check_inputs, move, refused


@dataclass
class ModelCall:
    """A call that the plugin made. `inputs` are tensors, `timeout` is in seconds."""

    inputs: list
    request: object
    started: float
    timeout: Optional[float]
    cancelled: bool = False


class Model:
    """A model that the plugin can call. `function` takes a list of tensors and returns a list of
    tensors, or yields lists if the model is `streaming`; it may raise an error of
    `hostler_plugin`. Each response takes `seconds` of the test's time. `calls` has all calls."""

    def __init__(self, function, *, seconds=0.0, streaming=False, inputs=None, outputs=None, version="1"):
        self.function, self.seconds, self.streaming = function, seconds, streaming
        self.inputs, self.outputs, self.version = inputs, outputs, version
        self.name, self.calls, self.made = None, [], []

    def respond(self, inputs, call):
        """Returns the outcomes of a call, each with the seconds that it takes."""
        from wit_world.imports.types import Tensor

        try:
            if self.inputs is not None:
                check_inputs(self.inputs, inputs)
            answers = self.function([Tensor(data) for data in inputs])
            answers = list(answers) if self.streaming else [answers]
            moved = [move(list(answer), f'what model "{self.name}" returns') for answer in answers]
            self.made += [data.data for answer in moved for data in answer]
            return [(self.seconds, Ok(answer)) for answer in moved]
        except Err as error:
            return [(self.seconds, error)]
        except Exception as error:
            raise ModelFault(f'the function of model "{self.name}" failed: {type(error).__name__}: {error}') from error


class Target:
    """A model that was looked up for one request."""

    def __init__(self, environment, model, request, is_async):
        self.environment, self.model, self.request, self.is_async = environment, model, request, is_async

    def start(self, inputs, timeout_us):
        from wit_world.imports.types import Tensor

        if self.request.has_ended:
            raise Trap(f'model "{self.model.name}" was used after the request that got it had ended')
        now = self.environment.now
        timeout = None if timeout_us is None else timeout_us / 1e6
        call = ModelCall([Tensor(data) for data in inputs], self.request, now, timeout)
        self.model.calls.append(call)
        at, events = now, []
        for seconds, outcome in self.model.respond(inputs, call):
            at += seconds
            events.append((at, outcome))
        if timeout is not None and at > now + timeout:
            events = [event for event in events if event[0] <= now + timeout]
            text = f'model "{self.model.name}" did not answer within {timeout * 1000:g} ms'
            events.append((now + timeout, refused(text, "DEADLINE")))
            at = now + timeout
        return Invocation(self.environment, self, call, events, at)

    def call(self, inputs, timeout_us):
        self._check_single()
        started = self.start(inputs, timeout_us)
        outcome = started.next()
        if isinstance(outcome, Err):
            raise outcome
        return outcome.value

    async def call_async(self, inputs, timeout_us, convert):
        self._check_single()
        outcome = await self.start(inputs, timeout_us).next_async(lambda one: one)
        if isinstance(outcome, Err):
            raise outcome
        return convert(outcome.value)

    def _check_single(self):
        if self.model.streaming:
            raise refused(f'model "{self.model.name}" has 0..n responses: use start', "UNSUPPORTED")


class Invocation:
    """A call in flight: outcomes with the times at which they arrive."""

    def __init__(self, environment, target, call, events, ends_at):
        self.environment, self.target, self.record = environment, target, call
        self.events, self.ends_at, self.is_async = events, ends_at, target.is_async
        self.is_over = False

    def next_time(self):
        if self.is_over:
            return float("inf")
        return self.events[0][0] if self.events else self.ends_at

    def cancel(self):
        if self.environment.now < self.ends_at or self.events:
            self.record.cancelled = True

    def outcome(self):
        if not self.events or self.events[0][0] > self.environment.now:
            return None
        return self._take()

    def next(self):
        if not self.events:
            self.is_over = True
            return None
        when, request = self.events[0][0], self.target.request
        if request.ends_at is not None and request.ends_at < when:
            self.environment.now = request.ends_at
            self.events, self.is_over = [], True
            return refused("the deadline of the request has passed", "DEADLINE")
        self.environment.now = max(self.environment.now, when)
        return self._take()

    async def next_async(self, convert):
        if not self.events:
            await self.environment.wait_async(max(self.ends_at, self.environment.now), self.target.request)
            return None
        when = max(self.events[0][0], self.environment.now)
        try:
            await self.environment.wait_async(when, self.target.request)
        except Err as error:
            self.events, self.is_over, self.record.cancelled = [], True, True
            return error
        return convert(self._take())

    def _take(self):
        _, outcome = self.events.pop(0)
        if isinstance(outcome, Err):
            self.events = []
        self.is_over = not self.events
        return outcome
