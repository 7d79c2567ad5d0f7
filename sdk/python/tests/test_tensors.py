"""`hostler.tensor` and `hostler.elements`."""

import math
import struct

import pytest

import hostler_plugin as hostler
import hostler_testing

hostler_testing.Host(type("Model", (hostler.Model,), {}))


def through(datatype, elements):
    return hostler.elements(hostler.tensor("x", datatype, [len(elements)], elements))


@pytest.mark.parametrize(
    "datatype, elements",
    [
        ("BOOL", [True, False]),
        ("UINT8", [0, 255]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("FP16", [1.5, -65504.0]),
        ("BF16", [1.0, -2.5, 0.0, math.inf, -math.inf]),
        ("FP32", [1.5, math.inf]),
        ("FP64", [1e300]),
        ("BYTES", [b"", b"abc"]),
    ],
)
def test_elements_come_back(datatype, elements):
    assert through(datatype, elements) == elements


def test_bf16_rounds_to_nearest_even():
    step = 2**-7  # between BF16 numbers from 1 to 2
    assert through("BF16", [1 + step / 2, 1 + 3 * step / 2]) == [1.0, 1 + 2 * step]
    assert through("BF16", [1 + step / 2 + 2**-20, 1 + step * 0.49]) == [1 + step, 1.0]
    assert hostler.tensor("x", "BF16", [1], [-0.0]).read(0, 2) == b"\x00\x80"


def test_bf16_agrees_with_exact_rounding_of_many_numbers():
    bits = [(7919 * index * index + 104729 * index) & 0xFFFFFFFF for index in range(20000)]
    numbers = [n for n in struct.unpack("<20000f", struct.pack("<20000I", *bits)) if abs(n) < 3.38e38]
    for number, rounded in zip(numbers, through("BF16", numbers)):
        upper = struct.unpack("<I", struct.pack("<f", number))[0] & 0xFFFF0000
        low = struct.unpack("<f", struct.pack("<I", upper))[0]
        high = struct.unpack("<f", struct.pack("<I", upper + 0x10000))[0]
        even = low if not upper >> 16 & 1 else high
        nearest = min((low, high), key=lambda one: (abs(one - number), one != even))
        assert rounded == nearest


def test_bf16_keeps_nan_and_refuses_what_is_too_large():
    assert math.isnan(through("BF16", [math.nan])[0])
    signalling = struct.unpack("<f", struct.pack("<I", 0x7F800001))[0]
    assert math.isnan(through("BF16", [signalling])[0])
    with pytest.raises(ValueError, match=r"element 1 is 3.4e\+38, outside the range of BF16"):
        through("BF16", [1.0, 3.4e38])


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (("FLOAT32", [1], [1]), ValueError, 'unknown datatype "FLOAT32"; did you mean "FP32"?'),
        (("int32", [1], [1]), ValueError, 'did you mean "INT32"?'),
        (("string", [1], ["a"]), ValueError, 'did you mean "BYTES"?'),
        (("TENSOR", [1], [1]), ValueError, "expected one of BOOL, UINT8"),
        ((7, [1], [1]), TypeError, 'must be a name such as "FP32"'),
        (("FP32", [2, 2], [1, 2, 3]), ValueError, r"shape \[2, 2\] has 4 elements, but there are 3"),
        (("FP32", [2, 1], [[1], [2], [3]]), ValueError, "must be one flat list"),
        (("FP32", [-1], [1]), ValueError, "dimension 0 of the shape is -1"),
        (("FP32", [1.0], [1]), TypeError, "dimension 0 of the shape must be an int"),
        (("FP32", 1, [1]), TypeError, "the shape must be a list"),
        (("FP32", [2], [1, "2"]), TypeError, "element 1 must be a number for FP32, not '2'"),
        (("INT32", [2], [1, 2.5]), TypeError, "element 1 must be an int for INT32, not 2.5"),
        (("UINT8", [3], [1, 2, 256]), ValueError, r"element 2 is 256, outside the range of UINT8 \(0 to 255\)"),
        (("FP16", [2], [1, 70000.0]), ValueError, r"element 1 is 70000.0, outside the range of FP16 \(at most 65504\)"),
        (("FP32", [1], [1e39]), ValueError, "outside the range of FP32"),
        (("BOOL", [2], [True, "no"]), TypeError, "element 1 must be True or False"),
        (("BYTES", [2], ["a", 5]), TypeError, "element 1 must be a str or bytes"),
        (("BYTES", [1], ["\ud800"]), ValueError, "element 0 contains half of a surrogate pair"),
        (("BYTES", [3], "abc"), TypeError, "put it into a list"),
        (("FP32", [1], 5), TypeError, "the elements must be a list"),
    ],
)
def test_an_error_says_what_is_wrong(arguments, error, message):
    with pytest.raises(error, match=message) as raised:
        hostler.tensor("x", *arguments)
    assert 'hostler.tensor("x")' in str(raised.value)


def test_iterables_tuples_and_indices_are_accepted():
    assert hostler.elements(hostler.tensor("x", "INT8", (3,), (n for n in [1, True, 3]))) == [1, 1, 3]
    assert hostler.elements(hostler.tensor("x", hostler.Datatype.FP32, [], [1])) == [1.0]
    assert hostler.spec("x", "BF16", (-1, 2)).shape == [-1, 2]


def test_a_spec_is_checked():
    with pytest.raises(ValueError, match=r"-2, and must be -1 \(free\) or from 0"):
        hostler.spec("x", "FP32", [-2])
    with pytest.raises(ValueError, match="did you mean"):
        hostler.spec("x", "fp32", [1])


def test_host_calls_check_their_arguments():
    tensor = hostler.tensor("x", "FP32", [2], [1, 2])
    for call, message in [
        (lambda: tensor.renamed(None), "Tensor.renamed: name must be a str, not None"),
        (lambda: tensor.read(-1, 2), "Tensor.read: offset is -1"),
        (lambda: tensor.reshaped(2), "Tensor.reshaped: shape must be a list, not an int"),
        (lambda: hostler.Tensor.create("x", "FP32", [1], b"1234"), "datatype must be of type Datatype"),
        (lambda: hostler.state.set("k", "text", None), "state.set: value must be bytes, not a str"),
        (lambda: hostler.state.set_tensors("k", [1], None), r"tensors\[0\] must be a tensor, not an int"),
        (lambda: hostler.config(5), "store.get: key must be a str, not an int"),
        (lambda: hostler.log("\udc00"), "half of a surrogate pair"),
        (lambda: hostler.log("x", "LOUD"), "unknown level"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            call()
    assert tensor.reshaped((1, 2)).shape() == [1, 2]
    with tensor:
        pass
    with pytest.raises(ValueError, match="its `with` block has ended"):
        tensor.name()
    with pytest.raises(ValueError, match="its `with` block has ended"):
        hostler.elements(tensor)
