from typing import List

from hostler_testing._environment import current

from .types import Resource


def count(name: str, by: int) -> None:
    current().metrics.count(name, by)


def set(name: str, value: float) -> None:
    current().metrics.set(name, value)


class Counter(Resource):
    @classmethod
    def create(cls, name: str, help: str, labels: List[str]) -> "Counter":
        return cls(current().metrics.create("counter", name, help, labels))

    def add(self, values: List[str], by: float) -> None:
        self._get().add(values, by)


class Gauge(Resource):
    @classmethod
    def create(cls, name: str, help: str, labels: List[str]) -> "Gauge":
        return cls(current().metrics.create("gauge", name, help, labels))

    def set(self, values: List[str], value: float) -> None:
        self._get().set(values, value)

    def add(self, values: List[str], by: float) -> None:
        self._get().add(values, by)


class Histogram(Resource):
    @classmethod
    def create(cls, name: str, help: str, labels: List[str], buckets: List[float]) -> "Histogram":
        return cls(current().metrics.create("histogram", name, help, labels, buckets))

    def observe(self, values: List[str], value: float) -> None:
        self._get().observe(values, value)
