from typing import Optional

from hostler_testing._environment import current

from .callables import Callable, Invocation  # noqa: F401


def get(model: str, version: Optional[str]) -> Callable:
    return Callable(current().target(model, version))
