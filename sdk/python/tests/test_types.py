"""The stubs for type checkers name exactly what the modules have."""

import ast
import importlib
from pathlib import Path

import pytest

import hostler_testing  # noqa: F401

SDK = Path(__file__).parent.parent


def public(tree):
    names = set()
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("name", ["hostler_plugin", "hostler_concurrent", "hostler_http"])
def test_the_stub_matches_the_module(name):
    stub = ast.parse((SDK / name / "__init__.pyi").read_text())
    module = importlib.import_module(name)
    for one in public(stub):
        assert hasattr(module, one), f"{name} lacks {one}, which its stub has"
    source = public(ast.parse((SDK / name / "__init__.py").read_text()))
    assert source <= public(stub), f"the stub of {name} lacks {source - public(stub)}"


@pytest.mark.parametrize("name", ["hostler_plugin", "hostler_concurrent", "hostler_http"])
def test_functions_and_methods_have_the_same_parameters(name):
    stub, source = ((ast.parse((SDK / name / f"__init__.{end}").read_text())) for end in ("pyi", "py"))

    def signatures(body, prefix=""):
        found = {}
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
                is_async = isinstance(node, ast.AsyncFunctionDef)
                found[prefix + node.name] = (is_async, [argument.arg for argument in node.args.args])
            elif isinstance(node, ast.ClassDef):
                found.update(signatures(node.body, f"{node.name}."))
        return found

    of_stub, of_source = signatures(stub.body), signatures(source.body)
    for one in of_source.keys() & of_stub.keys():
        assert of_source[one] == of_stub[one], one
