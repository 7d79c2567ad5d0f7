"""Unit tests of app.py. `hostler_host` stands in for the host."""

from hostler_testing import raises, values


def test_counts_down(hostler_host):
    responses = hostler_host.execute({"from": [3]})
    assert [values(response) for response in responses] == [{"n": [3]}, {"n": [2]}, {"n": [1]}]


def test_zero_has_no_responses(hostler_host):
    assert hostler_host.execute({"from": [0]}) == []


def test_refuses_a_negative_number(hostler_host):
    with raises("invalid-input", field="from"):
        hostler_host.execute({"from": [-1]})
