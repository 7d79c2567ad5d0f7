"""Unit tests of app.py. `hostler_host` stands in for the host."""

import hostler_plugin as hostler
from hostler_testing import Host, Model, raises, values


def failing(times, error):
    """Returns a model that fails this often, and then adds 1."""

    def run(inputs):
        if len(model.calls) <= times:
            raise error
        [x] = hostler.elements(inputs[0])
        return [hostler.tensor("y", "FP32", [1], [x + 1])]

    model = Model(run)
    return model


def x():
    return [hostler.tensor("x", "FP32", [1], [41.0])]


def test_calls_the_model_again_if_it_fails(hostler_host):
    model = failing(1, hostler.error("unavailable", "try again"))
    assert values(hostler_host.submit(x(), model)) == {"y": [42.0]}
    assert hostler_host.metrics.counts["again"] == 1


def test_config_sets_the_number_of_attempts():
    model = failing(3, hostler.failed("broken"))
    with raises("failed"):
        Host("app.py", config={"attempts": "3"}).submit(x(), model)
    assert len(model.calls) == 3


def test_does_not_repeat_a_mistake_of_the_caller(hostler_host):
    model = failing(1, hostler.invalid("x", "too large"))
    with raises("invalid-input", field="x"):
        hostler_host.submit(x(), model)
    assert len(model.calls) == 1
