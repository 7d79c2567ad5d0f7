"""Unit tests of app.py. `hostler_host` stands in for the host."""

import hostler_plugin as hostler
from hostler_testing import Model, raises, values


def test_the_value_becomes_the_input(hostler_host):
    inputs = hostler_host.preprocess({"value": 41}, inputs=[hostler.spec("x", "FP32", [-1])])
    assert values(inputs) == {"x": [41.0]}


def test_the_output_becomes_the_answer(hostler_host):
    def plus(inputs):
        [x] = hostler.elements(inputs[0])
        return [hostler.tensor("y", "FP32", [1], [x + 1])]

    assert hostler_host.transform({"value": 41}, Model(plus)) == {"answer": 42.0}


def test_refuses_what_is_not_a_number(hostler_host):
    with raises("invalid-input", field="value"):
        hostler_host.preprocess({"value": "x"})
