"""Converts the elements of tensors. Datatypes have the names of the Open Inference Protocol."""

import struct

from wit_world.imports.types import Datatype, Tensor, TensorSpec

# BF16 has no format: it is the upper half of an FP32.
_FORMATS = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h",
    "INT32": "i", "INT64": "q", "FP16": "e", "BF16": "f", "FP32": "f", "FP64": "d",
}  # fmt: skip

# What the formats accept: integers by their range, floats by their largest number.
_RANGES = {
    "UINT8": (0, 2**8 - 1), "UINT16": (0, 2**16 - 1), "UINT32": (0, 2**32 - 1), "UINT64": (0, 2**64 - 1),
    "INT8": (-(2**7), 2**7 - 1), "INT16": (-(2**15), 2**15 - 1), "INT32": (-(2**31), 2**31 - 1),
    "INT64": (-(2**63), 2**63 - 1),
}  # fmt: skip
_LARGEST = {"FP16": "65504", "BF16": "3.3895e38", "FP32": "3.4028e38", "FP64": "1.7977e308"}

# Names of other libraries, without `_` and in lower case.
_ALIASES = {
    "BOOL": ("boolean", "bool8"), "FP16": ("float16", "half", "f16"), "BF16": ("bfloat16",),
    "FP32": ("float32", "float", "single", "f32"), "FP64": ("float64", "double", "f64"),
    "BYTES": ("string", "str", "byte", "text", "object"), "INT64": ("int", "integer", "long"),
}  # fmt: skip

_create, _read = Tensor.create, Tensor.read


def tensor(name, datatype, shape, elements):
    """Creates a tensor from a flat sequence of numbers, booleans, or (`BYTES`) strings and bytes.

    Raises a TypeError or a ValueError that names the element or the dimension at fault."""
    if type(name) is not str:
        raise TypeError(f"hostler.tensor: the name must be a str, not {_kind(name)}")
    what = f'hostler.tensor("{name}")'
    known = datatype_of(datatype, what)
    datatype = known.name
    shape = _shape(shape, what, 0)
    try:
        count = len(elements)
    except TypeError:
        if not hasattr(elements, "__iter__"):
            raise TypeError(f"{what}: the elements must be a list, not {_kind(elements)}") from None
        elements = list(elements)
        count = len(elements)
    wanted = 1
    for dimension in shape:
        wanted *= dimension
    if count != wanted:
        nested = count > 0 and isinstance(elements, (list, tuple)) and isinstance(elements[0], (list, tuple))
        hint = ": the elements must be one flat list" if nested else ""
        raise ValueError(f"{what}: shape {shape} has {wanted} elements, but there are {count}{hint}")
    try:
        if datatype == "BYTES":
            if isinstance(elements, (str, bytes, bytearray)):
                raise TypeError(f"{what}: the elements must be a list, not {_kind(elements)}: put it into a list")
            data = b"".join(_length_and_bytes(element) for element in elements)
        elif datatype == "BF16":
            data = _bf16(elements, count)
        else:
            if datatype == "BOOL" and not set(map(type, elements)) <= {bool}:
                if problem := _wrong_element(what, datatype, elements):
                    raise problem
            data = struct.pack(f"<{count}{_FORMATS[datatype]}", *elements)
    except (struct.error, OverflowError, AttributeError, UnicodeEncodeError) as error:
        raise _wrong_element(what, datatype, elements) or error from None
    return _create(name, known, shape, data)


def elements(tensor):
    """Returns the elements of a tensor as a flat list; for `BYTES`, as bytes."""
    if type(tensor) is not Tensor:
        if isinstance(tensor, Tensor):
            raise ValueError(f"hostler.elements: this tensor must not be used: {tensor._spent}")
        raise TypeError(f"hostler.elements: expected a tensor, not {_kind(tensor)}")
    datatype = tensor.datatype().name
    data = _read(tensor, 0, tensor.byte_length())
    if datatype == "BYTES":
        return _split(data)
    if datatype == "BF16":
        halves = struct.unpack(f"<{len(data) // 2}H", data)
        wide = struct.pack(f"<{len(halves)}I", *[half << 16 for half in halves])
        return list(struct.unpack(f"<{len(halves)}f", wide))
    size = struct.calcsize(_FORMATS[datatype])
    return list(struct.unpack(f"<{len(data) // size}{_FORMATS[datatype]}", data))


def spec(name, datatype, shape):
    """Describes an input or output: name, datatype and shape, with -1 for a free dimension."""
    if type(name) is not str:
        raise TypeError(f"hostler.spec: the name must be a str, not {_kind(name)}")
    what = f'hostler.spec("{name}")'
    return TensorSpec(name, datatype_of(datatype, what), _shape(shape, what, -1))


def datatype_of(datatype, what):
    """Returns a `Datatype` by its name."""
    if type(datatype) is Datatype:
        return datatype
    try:
        return Datatype[datatype]
    except KeyError:
        pass
    if not isinstance(datatype, str):
        raise TypeError(f'{what}: the datatype must be a name such as "FP32", not {_kind(datatype)}')
    plain = datatype.lower().replace("_", "").replace("type", "")
    for known in Datatype.__members__:
        if plain == known.lower() or plain in _ALIASES.get(known, ()):
            raise ValueError(f'{what}: unknown datatype "{datatype}"; did you mean "{known}"?')
    raise ValueError(f'{what}: unknown datatype "{datatype}"; expected one of {", ".join(Datatype.__members__)}')


def _shape(shape, what, low):
    if type(shape) is not list:
        if isinstance(shape, (str, bytes)) or not hasattr(shape, "__iter__"):
            raise TypeError(f"{what}: the shape must be a list of dimensions, not {_kind(shape)}")
        shape = list(shape)
    for index, dimension in enumerate(shape):
        if type(dimension) is not int:
            if not hasattr(dimension, "__index__"):
                raise TypeError(f"{what}: dimension {index} of the shape must be an int, not {_kind(dimension)}")
            shape = [*shape[:index], dimension.__index__(), *shape[index + 1 :]]
        if not low <= shape[index] < 2**63:
            rule = "-1 (free) or from 0" if low else "0 or more; only the metadata has free dimensions"
            raise ValueError(f"{what}: dimension {index} of the shape is {shape[index]}, and must be {rule}")
    return shape


def _wrong_element(what, datatype, elements):
    """Returns an exception that names the first element that the datatype cannot express."""
    for index, element in enumerate(elements):
        where = f"{what}: element {index}"
        if datatype == "BYTES":
            if not isinstance(element, (str, bytes, bytearray, memoryview)):
                return TypeError(f"{where} must be a str or bytes for BYTES, not {_kind(element)}")
            if isinstance(element, str) and not _encodes(element):
                return ValueError(f"{where} contains half of a surrogate pair, which UTF-8 cannot express")
        elif datatype == "BOOL":
            if not (isinstance(element, int) and element in (0, 1)):
                return TypeError(f"{where} must be True or False for BOOL, not {_shown(element)}")
        elif datatype in _RANGES:
            if not hasattr(element, "__index__"):
                return TypeError(f"{where} must be an int for {datatype}, not {_shown(element)}")
            low, high = _RANGES[datatype]
            if not low <= element.__index__() <= high:
                return ValueError(f"{where} is {_shown(element)}, outside the range of {datatype} ({low} to {high})")
        else:
            if not hasattr(element, "__float__") and not hasattr(element, "__index__"):
                return TypeError(f"{where} must be a number for {datatype}, not {_shown(element)}")
            if not _fits(datatype, element):
                largest = _LARGEST[datatype]
                return ValueError(f"{where} is {_shown(element)}, outside the range of {datatype} (at most {largest})")
    return None


def _fits(datatype, number):
    try:
        _bf16([number], 1) if datatype == "BF16" else struct.pack(f"<{_FORMATS[datatype]}", number)
    except (OverflowError, struct.error):
        return False
    return True


def _bf16(elements, count):
    """Rounds to the nearest BF16, halves to the even one. A NaN stays a NaN."""
    bits = struct.unpack(f"<{count}I", struct.pack(f"<{count}f", *elements))
    halves = [
        (one + 0x7FFF + (one >> 16 & 1)) >> 16 if one & 0x7FFFFFFF <= 0x7F800000 else one >> 16 | 0x40
        for one in bits
    ]
    for one, half in zip(bits, halves):
        if half & 0x7FFF == 0x7F80 and one & 0x7FFFFFFF != 0x7F800000:
            raise OverflowError("too large for BF16")
    return struct.pack(f"<{count}H", *halves)


def _length_and_bytes(element):
    data = element.encode() if isinstance(element, str) else element
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise AttributeError
    data = bytes(data)
    return struct.pack("<I", len(data)) + data


def _split(data):
    result, at = [], 0
    while at + 4 <= len(data):
        end = at + 4 + struct.unpack_from("<I", data, at)[0]
        result.append(data[at + 4 : end])
        at = end
    return result


def _encodes(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value):
    return "None" if value is None else f"of type {type(value).__name__}"


def _shown(value):
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
