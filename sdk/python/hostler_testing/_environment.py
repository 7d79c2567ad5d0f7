"""What the host provides to a plugin: config, assets, state, metrics, log, models and time."""

import re

from ._faults import Trap
from ._models import Target
from ._tensors import refused

_current = None


def current():
    """Returns the host that was created or used last."""
    if _current is None:
        raise Trap("there is no host: create a hostler_testing.Host before the plugin makes a host call")
    return _current


def make_current(host):
    global _current
    _current = host


class Environment:
    """The part of a host that the functions of `wit_world` use."""

    def __init__(self, config, assets, models, http):
        self.config = {key: str(value) for key, value in (config or {}).items()}
        self.assets = {name: bytes(data) for name, data in (assets or {}).items()}
        self.models, self.http = dict(models or {}), http
        self.logs, self.metrics = [], Metrics()
        self.now = 0.0
        self.state = State(self)
        # The request of the blocking call in progress, and what `answer` sent.
        self.request = self.answered = None
        self.may_answer = False
        make_current(self)

    def asset(self, name):
        if name not in self.assets:
            names = ", ".join(f'"{one}"' for one in self.assets) or "none"
            raise refused(f'no asset "{name}"; the test has {names}', "NOT_FOUND")
        return self.assets[name]

    def active_request(self):
        return self.request

    def target(self, name, version):
        request = self.active_request()
        if request is None:
            raise refused("a model can be called only within a request", "UNSUPPORTED")
        for key in [name if version is None else f"{name}:{version}", name]:
            model = self.models.get(key)
            if model is not None and (version is None or model.version == version):
                return Target(self, model, request, self.is_async)
        if version is None:
            found = [model for key, model in self.models.items() if key.rpartition(":")[0] == name]
            if len(found) == 1:
                return Target(self, found[0], request, self.is_async)
        names = ", ".join(self.models) or "none"
        raise refused(f'no model "{name}"{f" version {version}" if version else ""}; the test has {names}', "NOT_FOUND")

    def wait_any(self, invocations, timeout_us):
        if not invocations and timeout_us is None:
            raise Trap("wait_any without invocations needs a timeout")
        until = [started.next_time() for started in invocations]
        limits = [self.now + timeout_us / 1e6] if timeout_us is not None else []
        if self.request is not None and self.request.ends_at is not None:
            limits.append(self.request.ends_at)
        first = min([*until, *limits])
        if first == float("inf"):
            raise Trap("wait_any waits for calls that have ended and were taken: it would never return")
        self.now = max(self.now, first)
        for index, when in enumerate(until):
            if when <= self.now:
                return index
        return None

    def answer(self, outputs):
        if not self.may_answer or self.answered is not None:
            message = "cannot answer the request: it was already answered, or it is an item of a batch"
            raise refused(message, "UNSUPPORTED")
        self.answered = outputs

    async def wait_async(self, when, request):
        """Waits until a time, or until the request ends."""
        from componentize_py_async_support import _loop

        ends_at = request.ends_at if request.ends_at is not None else float("inf")
        future = _loop.create_future()
        request.waits.append(future)
        _loop.wake_at(min(when, ends_at), future)
        await future
        if request.has_ended or ends_at <= min(self.now, when):
            request.late_waits += 1
            if request.late_waits > 1000:
                raise Trap("execute continues to wait after its request has ended, instead of returning")
            raise refused("the request has ended", request.end_kind)

    async def sleep_async(self, time_us):
        await self.wait_async(self.now + time_us / 1e6, self.active_request())

    def fetch(self, request):
        if self.is_async:
            return self._fetch_async(request)
        return self._fetch(request)

    async def _fetch_async(self, request):
        return self._fetch(request)

    def _fetch(self, request):
        from wit_world.imports.http_types import HttpResponse

        if self.http is None:
            raise refused(f"{request.url} is not allowed: the test has no http", "UNSUPPORTED")
        answer = self.http(request)
        if isinstance(answer, HttpResponse):
            return answer
        status, body, *headers = answer if isinstance(answer, tuple) else (200, answer)
        body = body.encode() if isinstance(body, str) else bytes(body)
        return HttpResponse(status, list(dict(*headers).items()), body)


class State:
    """The state of a plugin. `entries` and `counters` are plain dicts."""

    def __init__(self, clock):
        self.entries, self.counters, self._expires, self._clock = {}, {}, {}, clock

    def get(self, key, kind):
        if self._expires.get(key, float("inf")) <= self._clock.now:
            self.delete(key)
        value = self.entries.get(key)
        return value if isinstance(value, kind) else None

    def set(self, key, value, ttl_ms):
        self.entries[key] = value
        self._expires[key] = float("inf") if ttl_ms is None else self._clock.now + ttl_ms / 1000

    def delete(self, key):
        self._expires.pop(key, None)
        return self.entries.pop(key, None) is not None

    def add(self, counter, delta):
        if counter not in self.counters and len(self.counters) >= 1000:
            raise Trap(f'counter "{counter}" is one too many: there can be 1,000')
        value = self.counters.get(counter, 0) + delta
        self.counters[counter] = max(-(2**63), min(value, 2**63 - 1))
        return self.counters[counter]

    def compare_exchange(self, counter, expected, new):
        from componentize_py_types import Err

        value = self.counters.get(counter, 0)
        if value != expected:
            raise Err(value)
        self.add(counter, new - value)


class Metrics:
    """The metrics of a plugin. `counts` and `values` have the ones without a declaration, and
    `series` the others: by name, a dict by the values of the labels."""

    def __init__(self):
        self.counts, self.values, self.series, self._made = {}, {}, {}, {}

    def count(self, name, by):
        self._check_plain(name, self.counts)
        self.counts[name] = self.counts.get(name, 0) + by

    def set(self, name, value):
        self._check_plain(name, self.values)
        self.values[name] = value

    def _check_plain(self, name, known):
        if not re.fullmatch("[A-Za-z0-9_]{1,64}", name):
            raise Trap(f'metric "{name}": a name has 1 to 64 letters, digits and "_"')
        if name not in known and len(self.counts) + len(self.values) >= 64:
            raise Trap(f'metric "{name}" is one too many: there can be 64 names')

    def create(self, kind, name, help, labels, buckets=()):
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,63}", name) or name.endswith(_SUFFIXES):
            rule = 'a name has 1 to 64 letters, digits and "_", and no suffix of the host'
            raise refused(f'metric "{name}": {rule}', "FAILED")
        if len(labels) > 8 or len(buckets) > 32 or (name not in self._made and len(self._made) >= 64):
            raise refused(f'metric "{name}": at most 64 metrics, 8 labels and 32 buckets', "TOO_LARGE")
        if list(buckets) != sorted(set(buckets)):
            raise refused(f'metric "{name}": the buckets must ascend', "FAILED")
        definition = (kind, help, tuple(labels), tuple(buckets))
        if self._made.setdefault(name, definition) != definition:
            raise refused(f'metric "{name}" exists with another definition', "FAILED")
        return Metric(name, kind, len(labels), self.series.setdefault(name, {}))


_SUFFIXES = ("_total", "_bucket", "_sum", "_count")


class Metric:
    def __init__(self, name, kind, labels, series):
        self._name, self._kind, self._labels, self._series = name, kind, labels, series

    def _key(self, values):
        if len(values) != self._labels:
            raise refused(f'metric "{self._name}" has {self._labels} labels, got {len(values)} values', "FAILED")
        if any(len(value.encode()) > 128 for value in values):
            raise refused(f'metric "{self._name}": the value of a label has at most 128 bytes', "TOO_LARGE")
        return tuple(values)

    def add(self, values, by):
        if self._kind == "counter" and not by >= 0:
            raise refused(f'metric "{self._name}": a counter only increases, got {by}', "FAILED")
        key = self._key(values)
        self._series[key] = self._series.get(key, 0) + by

    def set(self, values, value):
        self._series[self._key(values)] = value

    def observe(self, values, value):
        self._series.setdefault(self._key(values), []).append(value)
