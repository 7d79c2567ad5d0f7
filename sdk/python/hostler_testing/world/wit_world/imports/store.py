from dataclasses import dataclass
from typing import List, Optional, Tuple, Union

from hostler_testing._environment import current


@dataclass
class Error_Upstream:
    value: str


@dataclass
class Error_Io:
    value: str


Error = Union[Error_Upstream, Error_Io]


def get(key: str) -> Optional[str]:
    return current().config.get(key)


def get_all() -> List[Tuple[str, str]]:
    return list(current().config.items())
