from enum import Enum

from hostler_testing._environment import current


class Level(Enum):
    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    CRITICAL = 5


def log(level: Level, context: str, message: str) -> None:
    current().logs.append((level.name, message))
