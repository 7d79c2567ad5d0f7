"""The types that componentize-py generates for `option` and `result`."""

from dataclasses import dataclass
from typing import Generic, TypeVar, Union

S, T, E = TypeVar("S"), TypeVar("T"), TypeVar("E")


@dataclass
class Some(Generic[S]):
    value: S


@dataclass
class Ok(Generic[T]):
    value: T


class Err(Generic[E], Exception):
    """Not a frozen dataclass as the generated one: test runners set attributes of exceptions."""

    __match_args__ = ("value",)

    def __init__(self, value):
        super().__init__(value)
        self.value = value

    def __repr__(self):
        return f"Err(value={self.value!r})"

    def __eq__(self, other):
        return isinstance(other, Err) and self.value == other.value

    __hash__ = Exception.__hash__


Result = Union[Ok[T], Err[E]]
