"""The data of tensors, and the checks of the host when it creates and receives them."""

from dataclasses import dataclass

from componentize_py_types import Err

from ._faults import ContractError, Trap

SIZES = {
    "BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2, "UINT32": 4,
    "INT32": 4, "FP32": 4, "UINT64": 8, "INT64": 8, "FP64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class TensorData:
    name: str
    datatype: object
    shape: list
    data: bytes

    @staticmethod
    def create(name, datatype, shape, data):
        count, kind, what = _count(shape), datatype.name, f'tensor "{name}"'
        if kind == "BYTES":
            if (found := _elements(data, what)) != count:
                raise refused(f"{what}: BYTES of shape {shown(shape)} needs {count} elements, got {found}")
        elif count * SIZES[kind] != len(data):
            needed = count * SIZES[kind]
            raise refused(f"{what}: {kind} of shape {shown(shape)} needs {needed} bytes, got {len(data)}")
        elif kind == "BOOL" and any(byte > 1 for byte in data):
            raise refused(f"{what}: BOOL elements are bytes 0 or 1")
        return TensorData(name, datatype, shape, data)

    def renamed(self, name):
        return TensorData(name, self.datatype, self.shape, self.data)

    def reshaped(self, shape):
        if _count(shape) != _count(self.shape):
            raise refused(
                f'tensor "{self.name}": cannot reshape {shown(self.shape)} to {shown(shape)}: '
                "the number of elements differs"
            )
        return TensorData(self.name, self.datatype, shape, self.data)

    def shown(self):
        return f"{self.name}: {self.datatype.name} {shown(self.shape)}"


def refused(message, kind="INVALID_INPUT", field=None):
    from wit_world.imports.types import Error, ErrorKind

    return Err(Error(ErrorKind[kind], message, field))


def shown(shape):
    return f"[{','.join(map(str, shape))}]"


def _count(shape):
    if len(shape) > 16:
        raise refused(f"a tensor has at most 16 dimensions, got {len(shape)}")
    count = 1
    for dimension in shape:
        if dimension < 0:
            raise refused(f"shape {shown(shape)} has a negative dimension")
        count *= dimension
    return count


def _elements(data, what):
    at = found = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        if at + 4 > len(data) or at + 4 + length > len(data):
            raise refused(f"{what}: BYTES element {found} is longer than the data")
        at, found = at + 4 + length, found + 1
    return found


def move(tensors, where):
    """Takes the handles of tensors back, as the host does with what a guest returns or sends."""
    from wit_world.imports.types import Tensor

    if type(tensors) is not list:
        raise Trap(f"{where} must be a list of tensors, not {type(tensors).__name__}")
    moved = []
    for index, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise Trap(f"{where}: item {index} is no tensor, but of type {type(tensor).__name__}")
        if tensor.__dict__.get("handle") is None:
            raise Trap(f"{where}: item {index} was moved to the host before, or closed")
        moved.append(tensor.__dict__.pop("handle"))
    return moved


def accepts(spec, shape):
    if not spec:
        return all(dimension == 1 for dimension in shape)
    return len(spec) == len(shape) and all(one in (-1, other) for one, other in zip(spec, shape))


def check_inputs(specs, tensors, optional=()):
    """Checks inputs as the host does before it calls a plugin. Its client would receive 400."""
    by_name = {spec.name: spec for spec in specs}
    for index, tensor in enumerate(tensors):
        if (spec := by_name.get(tensor.name)) is None:
            raise refused(f'no input "{tensor.name}"; inputs: {", ".join(by_name)}', field=tensor.name)
        if any(tensor.name == other.name for other in tensors[:index]):
            raise refused(f"input '{tensor.name}' already exists in request", field=tensor.name)
        if spec.datatype is not tensor.datatype:
            raise refused(
                f'input "{spec.name}": expected {spec.datatype.name}, got {tensor.datatype.name}', field=spec.name
            )
        if not accepts(spec.shape, tensor.shape):
            raise refused(
                f'input "{spec.name}": expected shape {shown(spec.shape)}, got {shown(tensor.shape)}', field=spec.name
            )
    for name in by_name:
        if name not in optional and all(tensor.name != name for tensor in tensors):
            raise refused(f'input "{name}" is missing', field=name)


def check_outputs(specs, tensors, where, made_by_model=()):
    """Checks what a plugin returned. `made_by_model` are shapes that the host does not check,
    because a model made these tensors."""
    for tensor in tensors:
        fits = any(
            spec.name == tensor.name
            and spec.datatype is tensor.datatype
            and (accepts(spec.shape, tensor.shape) or any(tensor.data is data for data in made_by_model))
            for spec in specs
        )
        if not fits:
            declared = ", ".join(f"{spec.name}: {spec.datatype.name} {shown(spec.shape)}" for spec in specs)
            raise ContractError(
                f"{where} returned the output {tensor.shown()}, which the metadata does not declare; "
                f"it declares {declared or 'none'}"
            )
