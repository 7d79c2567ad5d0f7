from typing import List, Optional

from componentize_py_types import Ok
from hostler_testing._environment import current

from .types import Resource, Tensor


class Invocation(Resource):
    """A call in flight. In a streaming model, `next` is asynchronous."""

    def outcome(self):
        return _result(self._get().outcome())

    def next(self):
        started = self._get()
        if started.is_async:
            return started.next_async(_result)
        return _result(started.next())

    def __exit__(self, *reason):
        self._get().cancel()
        super().__exit__(*reason)


class Callable(Resource):
    """A model that can be called. In a streaming model, `call` is asynchronous."""

    def model(self) -> str:
        return self._get().model.name

    def version(self) -> str:
        return self._get().model.version

    def streaming(self) -> bool:
        return self._get().model.streaming

    def call(self, inputs: List[Tensor], timeout_us: Optional[int] = None) -> List[Tensor]:
        target = self._get()
        if target.is_async:
            return target.call_async(_data(inputs), timeout_us, _tensors)
        return _tensors(target.call(_data(inputs), None))

    def call_within(self, inputs: List[Tensor], timeout_us: int) -> List[Tensor]:
        return _tensors(self._get().call(_data(inputs), timeout_us))

    def start(self, inputs: List[Tensor], timeout_us: Optional[int] = None) -> Invocation:
        return Invocation(self._get().start(_data(inputs), timeout_us))

    def start_within(self, inputs: List[Tensor], timeout_us: int) -> Invocation:
        return Invocation(self._get().start(_data(inputs), timeout_us))


def wait_any(invocations: List[Invocation], timeout_us: Optional[int]) -> Optional[int]:
    return current().wait_any([invocation._get() for invocation in invocations], timeout_us)


def answer(outputs: List[Tensor]) -> None:
    current().answer(_data(outputs))


def _data(tensors):
    return [tensor._get() for tensor in tensors]


def _tensors(data):
    return [Tensor(one) for one in data]


def _result(outcome):
    return Ok(_tensors(outcome.value)) if isinstance(outcome, Ok) else outcome
