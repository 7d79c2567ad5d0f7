"""The stand-in has every function, resource and type of the contract, so that it cannot drift."""

import importlib
import re
from pathlib import Path

import pytest

import hostler_testing  # noqa: F401

WIT = Path(__file__).parents[3] / "wit"
HOST_INTERFACES = ["types", "assets", "callables", "models", "state", "metrics", "http-types", "http"]
CONCURRENT = ["sinks", "clock", "models", "http"]

pytestmark = pytest.mark.skipif(not WIT.is_dir(), reason="the contract is in the repository of Hostler")


def interfaces(file):
    """Returns the bodies of the interfaces of a file by their names."""
    text = re.sub(r"//.*", "", (WIT / file).read_text()).replace("%", "")
    return {
        match[1]: match[2] for match in re.finditer(r"^interface ([\w-]+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    }


def pascal(name):
    return "".join(part.capitalize() for part in name.split("-"))


def snake(name):
    return name.replace("-", "_")


def parts(body):
    """Yields kind, owner and name of everything in an interface."""
    rest = body
    for kind, name, inner in re.findall(r"(resource|record|enum|variant) ([\w-]+) \{\n?(.*?)\n? *\}", body, re.DOTALL):
        yield kind, None, name
        for line in inner.split("\n"):
            if match := re.match(r"\s*([\w-]+)", line):
                yield ("method" if kind == "resource" else f"{kind} case"), name, match[1]
        rest = rest.replace(inner, "")
    for name in re.findall(r"^  ([\w-]+): (?:async )?func", rest, re.MULTILINE):
        yield "function", None, name


def check(module, body):
    found = 0
    for kind, owner, name in parts(body):
        found += 1
        if kind == "function":
            assert callable(getattr(module, snake(name), None)), f"{module.__name__} lacks {name}"
        elif kind == "method":
            assert callable(getattr(getattr(module, pascal(owner)), snake(name), None)), f"{owner} lacks {name}"
        elif kind == "record case":
            assert snake(name) in getattr(module, pascal(owner)).__dataclass_fields__, f"{owner} lacks {name}"
        elif kind == "enum case":
            assert snake(name).upper() in getattr(module, pascal(owner)).__members__, f"{owner} lacks {name}"
        elif kind == "variant case":
            assert hasattr(module, f"{pascal(owner)}_{pascal(name)}"), f"{owner} lacks {name}"
        else:
            assert hasattr(module, pascal(name)), f"{module.__name__} lacks {name}"
    return found


@pytest.mark.parametrize("interface", HOST_INTERFACES)
def test_the_stand_in_has_all_of_an_interface(interface):
    module = importlib.import_module(f"wit_world.imports.{snake(interface)}")
    assert check(module, interfaces("hostler.wit")[interface]) > 0


@pytest.mark.parametrize("interface", CONCURRENT)
def test_the_stand_in_has_all_of_a_concurrent_interface(interface):
    module = importlib.import_module(f"wit_world.imports.{snake(interface)}")
    assert check(module, interfaces("async/concurrent.wit")[interface]) > 0


def test_all_interfaces_are_known():
    roles = {"transformer", "model", "optional-inputs", "executor"}
    assert set(interfaces("hostler.wit")) == {*HOST_INTERFACES, *roles}
    assert set(interfaces("async/concurrent.wit")) == {*CONCURRENT, "streaming-model"}


def test_the_order_of_enums_is_that_of_the_contract():
    from wit_world.imports.types import Datatype, ErrorKind

    for enum, name in [(Datatype, "datatype"), (ErrorKind, "error-kind")]:
        cases = [case for kind, owner, case in parts(interfaces("hostler.wit")["types"]) if owner == name]
        assert [snake(case).upper() for case in cases] == list(enum.__members__)


def test_the_roles_have_all_functions():
    from wit_world import exports

    every = {**interfaces("hostler.wit"), **interfaces("async/concurrent.wit")}
    for role in ["transformer", "model", "optional-inputs", "executor", "streaming-model"]:
        names = [name for kind, _, name in parts(every[role]) if kind == "function"]
        assert names
        for name in names:
            assert callable(getattr(getattr(exports, pascal(role)), snake(name))), f"{role} lacks {name}"
