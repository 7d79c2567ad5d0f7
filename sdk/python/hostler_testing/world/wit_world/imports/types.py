from dataclasses import dataclass
from enum import Enum
from typing import List, Optional, Union

from hostler_testing._faults import Trap
from hostler_testing._tensors import TensorData


class Datatype(Enum):
    BOOL = 0
    UINT8 = 1
    UINT16 = 2
    UINT32 = 3
    UINT64 = 4
    INT8 = 5
    INT16 = 6
    INT32 = 7
    INT64 = 8
    FP16 = 9
    BF16 = 10
    FP32 = 11
    FP64 = 12
    BYTES = 13


class ErrorKind(Enum):
    INVALID_INPUT = 0
    NOT_FOUND = 1
    UNSUPPORTED = 2
    TOO_LARGE = 3
    OVERLOADED = 4
    UNAVAILABLE = 5
    DEADLINE = 6
    CANCELLED = 7
    FAILED = 8


@dataclass
class Error:
    kind: ErrorKind
    message: str
    field: Optional[str]


class Resource:
    """A handle. The host takes it back by deleting the attribute, as componentize-py does."""

    def __init__(self, handle):
        self.handle = handle

    def _get(self):
        handle = self.__dict__.get("handle")
        if handle is None:
            raise Trap(f"a {type(self).__name__.lower()} was used after it was moved to the host or closed")
        return handle

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self._get()
        self.handle = None


class Tensor(Resource):
    @classmethod
    def create(cls, name: str, datatype: Datatype, shape: List[int], data: bytes) -> "Tensor":
        return cls(TensorData.create(name, datatype, list(shape), data))

    def name(self) -> str:
        return self._get().name

    def datatype(self) -> Datatype:
        return self._get().datatype

    def shape(self) -> List[int]:
        return list(self._get().shape)

    def byte_length(self) -> int:
        return len(self._get().data)

    def read(self, offset: int, length: int) -> bytes:
        return self._get().data[offset : offset + length]

    def renamed(self, name: str) -> "Tensor":
        return Tensor(self._get().renamed(name))

    def reshaped(self, shape: List[int]) -> "Tensor":
        return Tensor(self._get().reshaped(list(shape)))

    def __repr__(self):
        handle = self.__dict__.get("handle")
        return f"<tensor {handle.shown()}>" if handle else "<tensor that was moved or closed>"


@dataclass
class Blob:
    content_type: str
    data: bytes


@dataclass
class Payload_Json:
    value: str


@dataclass
class Payload_Bytes:
    value: Blob


@dataclass
class Payload_Tensors:
    value: List[Tensor]


Payload = Union[Payload_Json, Payload_Bytes, Payload_Tensors]


@dataclass
class Parameter_Boolean:
    value: bool


@dataclass
class Parameter_Integer:
    value: int


@dataclass
class Parameter_Number:
    value: float


@dataclass
class Parameter_Text:
    value: str


Parameter = Union[Parameter_Boolean, Parameter_Integer, Parameter_Number, Parameter_Text]


class Request(Resource):
    def _get(self):
        if self.__dict__.get("handle") is None:
            raise Trap("a request was used after the call that received it had ended")
        return self.handle

    def id(self) -> str:
        return self._get().id

    def model(self) -> str:
        return self._get().model

    def version(self) -> str:
        return self._get().version

    def time_left(self) -> Optional[int]:
        return self._get().time_left()

    def cancelled(self) -> bool:
        return self._get().is_cancelled()

    def parameter(self, name: str) -> Optional[Parameter]:
        value = self._get().parameters.get(name)
        if value is None:
            return None
        for kind, parameter in _PARAMETERS.items():
            if isinstance(value, kind):
                return parameter(value)
        raise TypeError(f'parameter "{name}" of the test must be a bool, an int, a float or a str, not {value!r}')

    def parameter_names(self) -> List[str]:
        return list(self._get().parameters)

    def note(self) -> bytes:
        return self._get().note

    def set_note(self, data: bytes) -> None:
        if len(data) > 1 << 20:
            raise Trap(f"a note of {len(data)} bytes: it can have at most 1 MiB")
        self._get().note = data


_PARAMETERS = {bool: Parameter_Boolean, int: Parameter_Integer, float: Parameter_Number, str: Parameter_Text}


@dataclass
class TensorSpec:
    name: str
    datatype: Datatype
    shape: List[int]


@dataclass
class ModelMetadata:
    inputs: List[TensorSpec]
    outputs: List[TensorSpec]
