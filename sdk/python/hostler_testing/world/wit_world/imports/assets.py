from typing import List

from hostler_testing._environment import current


def names() -> List[str]:
    return list(current().assets)


def size(name: str) -> int:
    return len(current().asset(name))


def read(name: str, offset: int, length: int) -> bytes:
    return current().asset(name)[offset : offset + length]
