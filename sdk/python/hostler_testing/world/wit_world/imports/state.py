from typing import List, Optional

from hostler_testing._environment import current

from .types import Tensor


def get(key: str) -> Optional[bytes]:
    return current().state.get(key, bytes)


def set(key: str, value: bytes, ttl_ms: Optional[int]) -> None:
    current().state.set(key, value, ttl_ms)


def get_tensors(key: str) -> Optional[List[Tensor]]:
    kept = current().state.get(key, tuple)
    return None if kept is None else [Tensor(data) for data in kept]


def set_tensors(key: str, tensors: List[Tensor], ttl_ms: Optional[int]) -> None:
    current().state.set(key, tuple(tensor._get() for tensor in tensors), ttl_ms)


def delete(key: str) -> bool:
    return current().state.delete(key)


def add(counter: str, delta: int) -> int:
    return current().state.add(counter, delta)


def compare_exchange(counter: str, expected: int, new: int) -> None:
    current().state.compare_exchange(counter, expected, new)
