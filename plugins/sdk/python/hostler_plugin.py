"""What plugin authors import: the contract's types under short names, and helpers for tensors, errors,
parameters, assets, config and the log.

A plugin is a module with a class `Transformer` or `Model` that derives from the one here:

    import hostler_plugin as hostler

    class Model(hostler.Model):
        def metadata(self):
            spec = hostler.spec("message", "BYTES", [-1])
            return hostler.ModelMetadata([spec], [spec])

        def predict(self, request, inputs):
            return inputs

It imports nothing but `struct`: what a component imports, every fresh instance carries.
"""

import struct

from componentize_py_types import Err
from wit_world.imports import assets, logging, store
from wit_world.imports.types import (
    Blob,
    Datatype,
    Error,
    ErrorKind,
    ModelMetadata,
    Parameter_Boolean,
    Parameter_Integer,
    Parameter_Number,
    Parameter_Text,
    Payload_Bytes as Bytes,
    Payload_Json as Json,
    Payload_Tensors as Tensors,
    Tensor,
    TensorSpec,
)


class Transformer:
    """Turns what an application sends into a model's inputs, and its outputs into an answer.

    Each call may run in an instance of its own: what `postprocess` must know of `preprocess` goes
    through `request.set_note`. A payload is a `Json`, `Bytes` or `Tensors`, with its `value`.
    """

    def metadata(self):
        """Called once, at load: None if callers should see the model's own inputs and outputs."""
        return None

    def preprocess(self, request, input):
        """Called once for each request: a payload to a list of tensors."""
        raise NotImplementedError

    def postprocess(self, request, outputs):
        """Called once for each response of the model: a list of tensors to a payload."""
        raise NotImplementedError


class Model:
    """Is a model itself."""

    def metadata(self):
        """Called once, at load: a `ModelMetadata` of two lists of `spec`."""
        raise NotImplementedError

    def predict(self, request, inputs):
        """Called once for each request, with inputs that fit the metadata: tensors to tensors."""
        raise NotImplementedError


# Errors: `raise hostler.invalid("age", "expected a number")`. Any other exception is a trap.


def error(kind, message, field=None):
    """An error of any kind of the contract, such as `ErrorKind.OVERLOADED`."""
    return Err(Error(kind, message, field))


def invalid(field, message):
    """The caller's input is wrong at `field`, a path such as `items[3].name`; None if all of it is."""
    return error(ErrorKind.INVALID_INPUT, message, field)


def not_found(message):
    """Something that the caller named does not exist."""
    return error(ErrorKind.NOT_FOUND, message)


def unsupported(message):
    """A valid request for something that is not offered."""
    return error(ErrorKind.UNSUPPORTED, message)


def failed(message):
    """Not the caller's fault."""
    return error(ErrorKind.FAILED, message)


# Tensors: the datatypes are named as the Open Inference Protocol names them.

_FORMATS = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h",
    "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip


def tensor(name, datatype, shape, elements):
    """A tensor of a flat list of numbers, booleans, or (`BYTES`) strings and bytes."""
    if datatype == "BYTES":
        data = b"".join(_element(element) for element in elements)
    else:
        data = struct.pack(f"<{len(elements)}{_FORMATS[datatype]}", *elements)
    return Tensor.create(name, Datatype[datatype], shape, data)


def elements(tensor):
    """The elements of a tensor as a flat list; of `BYTES`, as bytes."""
    datatype = tensor.datatype().name
    data = tensor.read(0, tensor.byte_length())
    if datatype == "BYTES":
        return _split(data)
    size = struct.calcsize(_FORMATS[datatype])
    return list(struct.unpack(f"<{len(data) // size}{_FORMATS[datatype]}", data))


def spec(name, datatype, shape):
    """Name, datatype and shape of an input or output, -1 where a dimension is free."""
    return TensorSpec(name, Datatype[datatype], shape)


def named(tensors, name):
    """The tensor of that name among a model's outputs. One that is missing is not the caller's fault."""
    for tensor in tensors:
        if tensor.name() == name:
            return tensor
    raise failed(f'there is no tensor "{name}"')


def described(tensor):
    """Datatype and shape as an error names them: `FP32 [1,18]`."""
    shape = ",".join(str(dimension) for dimension in tensor.shape())
    return f"{tensor.datatype().name} [{shape}]"


def _element(element):
    data = element.encode() if isinstance(element, str) else element
    return struct.pack("<I", len(data)) + data


def _split(data):
    result, at = [], 0
    while at + 4 <= len(data):
        end = at + 4 + struct.unpack_from("<I", data, at)[0]
        result.append(data[at + 4 : end])
        at = end
    return result


# Parameters of a request. One of another type is the caller's fault: its field is `parameters.<name>`.


def flag(request, name):
    """A boolean parameter, False if the request has none of that name."""
    return _parameter(request, name, "true or false", Parameter_Boolean) or False


def text(request, name):
    """A parameter that is a text, or None."""
    return _parameter(request, name, "a text", Parameter_Text)


def integer(request, name):
    """A parameter that is a whole number, or None."""
    return _parameter(request, name, "a whole number", Parameter_Integer)


def number(request, name):
    """A parameter that is a number, whole or not, or None."""
    return _parameter(request, name, "a number", Parameter_Number, Parameter_Integer)


def _parameter(request, name, expected, *kinds):
    parameter = request.parameter(name)
    if parameter is None:
        return None
    if not isinstance(parameter, kinds):
        raise invalid(f"parameters.{name}", f'parameter "{name}": expected {expected}')
    return parameter.value


# What the manifest gives the plugin, and the log.


def asset(name):
    """The bytes of an asset. One that is not there is the operator's fault, not the caller's."""
    try:
        return assets.read(name, 0, assets.size(name))
    except Err as err:
        raise failed(f'asset "{name}": {err.value.message}') from None


def config(key):
    """The value of a key, None if the manifest has none."""
    try:
        return store.get(key)
    except Err as err:
        raise failed(f'config "{key}": {err.value.value}') from None


def log(message, level="INFO"):
    """A line for the host's log: DEBUG, INFO, WARN or ERROR."""
    logging.log(logging.Level[level], "", message)
