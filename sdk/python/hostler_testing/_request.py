"""The request that a test makes."""

from dataclasses import dataclass, field
from typing import Optional


@dataclass
class RequestData:
    """A request. `seconds` is the time until its deadline, and `cancelled_after` the time after
    which its client disconnects; both count from the call. `note` changes when a plugin sets it."""

    id: str = "test"
    model: str = "model"
    version: str = "1"
    parameters: dict = field(default_factory=dict)
    note: bytes = b""
    seconds: Optional[float] = None
    cancelled: bool = False
    cancelled_after: Optional[float] = None

    def begin(self, environment):
        self.environment, self.waits, self.late_waits, self.has_ended = environment, [], 0, False
        ends = [(0.0 if self.cancelled else self.cancelled_after, "CANCELLED"), (self.seconds, "DEADLINE")]
        ends = [(environment.now + after, kind) for after, kind in ends if after is not None]
        self.ends_at, self.end_kind = min(ends, default=(None, "CANCELLED"))
        self._deadline = None if self.seconds is None else environment.now + self.seconds

    def end(self):
        self.has_ended = True
        for future in self.waits:
            if not future.done():
                future.set_result(None)

    def time_left(self):
        if self._deadline is None:
            return None
        return max(0, round((self._deadline - self.environment.now) * 1000))

    def is_cancelled(self):
        return self.end_kind == "CANCELLED" and self.ends_at is not None and self.environment.now >= self.ends_at
