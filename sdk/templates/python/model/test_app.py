"""Unit tests of app.py. `hostler_host` stands in for the host."""

from hostler_testing import raises, values


def test_doubles_each_element(hostler_host):
    assert values(hostler_host.predict({"x": [1.0, 2.5]})) == {"y": [2.0, 5.0]}


def test_refuses_a_request_without_its_input(hostler_host):
    with raises("invalid-input", field="x"):
        hostler_host.predict({})
