"""What `hostler_build` finds in sources, without componentize-py."""

import pytest

from hostler_build import BuildError, plan
from hostler_build._component import explained
from hostler_build._entry import entry
from hostler_build._methods import check_methods
from hostler_build._source import find_module, read_all

HEAD = "import hostler_plugin as hostler\n"
MODEL = HEAD + "class Model(hostler.Model):\n    def predict(self, request, inputs):\n        "


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Writes files, and returns the plan of `app.py`."""
    monkeypatch.chdir(tmp_path)

    def write(app, packages=(), **files):
        for name, text in {"app.py": app, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return plan("app.py", [str(tmp_path / name) for name in packages])

    return write


def refused(project, app, *words, **files):
    with pytest.raises(BuildError) as caught:
        project(app, **files)
    text = f"{caught.value}\n{caught.value.mend}"
    for word in words:
        assert word in text, text


def world(project, app, **files):
    return project(app, **files)[2].world


# Roles and worlds


@pytest.mark.parametrize(
    "app, expected",
    [
        (MODEL + "pass", "model-plugin"),
        (MODEL + "hostler.get_model('a')", "calling-model-plugin"),
        (MODEL + "hostler.models.get('a', None)", "calling-model-plugin"),
        (MODEL + "hostler.sleep(1)", "calling-model-plugin"),
        (MODEL + "'# get_model('", "model-plugin"),
        (MODEL + "import hostler_http", "model-outbound-plugin"),
        (HEAD + "class Transformer(hostler.Transformer): pass", "transformer-plugin"),
        (
            "from hostler_plugin import Transformer as T, get_model as g\nclass Transformer(T): pass",
            "calling-transformer-plugin",
        ),
        (HEAD + "class Executor(hostler.Executor):\n    x = hostler.get_model", "executor-plugin"),
        ("import hostler_http as h\nclass Executor: pass", "executor-outbound-plugin"),
        (MODEL + "pass\nclass OptionalInputs(hostler.OptionalInputs): pass", "optional-model-plugin"),
        (MODEL + "hostler.get_model('a')\nclass OptionalInputs: pass", "calling-optional-model-plugin"),
        ("import hostler_http\n" + MODEL + "pass\nclass OptionalInputs: pass", "optional-model-outbound-plugin"),
        ("class StreamingModel: pass", "hostler:concurrent/streaming-model-plugin"),
        ("if True:\n    class Model: pass\n", "model-plugin"),
    ],
)
def test_the_source_selects_the_world(project, app, expected):
    assert world(project, app) == expected


def test_local_modules_select_the_world_too(project):
    assert world(project, "import a\n" + MODEL + "pass", **{"a.py": "import hostler_http"}) == "model-outbound-plugin"
    app = "from pack import deep\n" + MODEL + "pass"
    files = {"pack/__init__.py": "", "pack/deep.py": "from hostler_plugin import get_model"}
    assert world(project, app, **files) == "calling-model-plugin"


def test_a_role_can_be_imported_from_a_local_module(project):
    assert world(project, "from impl import Model", **{"impl.py": "class Model: pass"}) == "model-plugin"
    refused(project, "from hostler_plugin import Model", "app.py: it has no class", "class Model(hostler.Model)")


def test_the_chosen_world_wins(project):
    project(MODEL + "pass")
    assert plan("app.py", world="calling-model-plugin")[2].world == "calling-model-plugin"


@pytest.mark.parametrize(
    "app, words",
    [
        ("x = 1", ["app.py: it has no class"]),
        ("class A: pass\nclass Model: pass\nclass Executor: pass", ["`Model` (line 2) and `Executor` (line 3)"]),
        ("\nclass Modle: pass", ["app.py:2", "`Modle`", "did you mean `Model`?"]),
        (HEAD + "class Double(hostler.Model): pass", ["app.py:2", "`Double`", "name it `Model`"]),
        ("def f():\n    class Model: pass", ["app.py:2", "inside of another definition"]),
        ("class Executor: pass\nclass OptionalInputs: pass", ["app.py:2", "only a model"]),
        ("class Model: pass\nclass OptionalInput: pass", ["app.py:2", "name it `OptionalInputs`"]),
        ("import hostler_http\nclass StreamingModel: pass", ["app.py:1", "streaming models"]),
        ("class Model\n", ["app.py:1: SyntaxError", "class Model"]),
        ('if __name__ == "__main__":\n    class Model: pass', ["app.py:2", "inside of another definition"]),
    ],
)
def test_refuses_a_source_without_one_role(project, app, words):
    refused(project, app, *words)


# Modules and calls that do not work


@pytest.mark.parametrize("line", ["import numpy as np", "from numpy import array", "import numpy.linalg"])
def test_refuses_packages_with_native_code(project, line):
    refused(project, MODEL + line, "app.py:4", "`numpy` does not work", "get_model")
    refused(project, "import a\n" + MODEL + "pass", "a.py:2", "numpy", **{"a.py": "\n" + line})


def test_an_optional_import_is_not_refused(project):
    for guarded in (
        "try:\n    import numpy\nexcept ImportError:\n    numpy = None\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy\n",
        "import sys\nif sys.version_info < (3, 11):\n    import tomli\n",
    ):
        project(guarded + MODEL + "pass")


def test_a_package_that_was_built_for_components_is_not_refused(project):
    files = {"packages/numpy/__init__.py": "", "packages/numpy/core.cpython-314-wasm32-wasi.so": ""}
    app = "import numpy\n" + MODEL + "pass"
    with pytest.raises(BuildError):
        project(app)
    project(app, packages=["packages"], **files)


def test_refuses_a_module_that_does_not_exist(project):
    refused(project, MODEL + "import nothere", "app.py:4", "no module `nothere`", "requirements.txt", "nothere.py")
    refused(project, "import hostler_testing\n" + MODEL + "pass", "app.py:1", "unit tests")


@pytest.mark.parametrize(
    "head, call",
    [
        ("import threading", "threading.Thread(target=print)"),
        ("from threading import Thread as T", "T()"),
        ("from concurrent.futures import ThreadPoolExecutor", "ThreadPoolExecutor()"),
        ("import subprocess", "subprocess.run(['ls'])"),
        ("import socket", "socket.socket()"),
        ("import asyncio", "asyncio.run(f())"),
        ("import urllib.request", "urllib.request.urlopen('http://a')"),
        ("import os", "os.system('ls')"),
        ("import tempfile", "tempfile.mkstemp()"),
    ],
)
def test_refuses_calls_that_always_fail(project, head, call):
    refused(project, f"{head}\n{MODEL}{call}", "app.py:5", "always fails")


def test_locks_and_programs_are_not_refused(project):
    project("import threading\nlock = threading.Lock()\n" + MODEL + "pass")
    project("import subprocess\n" + MODEL + 'pass\nif __name__ == "__main__":\n    subprocess.run(["ls"])\n')


# The entry module


def entry_of(project, app, **files):
    module, local, role = project(app, packages=["packages"], **files)
    bundled = read_all(local, ["packages"], is_local=False)[len(local) :]
    return entry(module, role, local, bundled, lambda name: find_module(name, ["packages"]))


def test_the_entry_imports_what_functions_import(project):
    app = MODEL + "import json.tool\n        from colorsys import rgb_to_hsv\n        import helpers"
    text, places = entry_of(project, app, **{"helpers.py": "def f():\n    import wave\n"})
    lines = text.splitlines()
    assert "from app import Model" in lines
    place = {lines[line - 1]: place for line, place in places.items()}
    assert place["load('json.tool')"] == "app.py:4"
    assert place["load('colorsys', 'rgb_to_hsv')"] == "app.py:5"
    assert place["load('helpers')"] == "app.py:6"
    assert place["load('wave')"] == "helpers.py:2"


def test_the_entry_tries_what_is_optional_and_what_is_implied(project):
    app = MODEL + "try:\n            import lzma\n        except ImportError:\n            pass\n"
    app += "        'a'.encode('cp1252'), datetime.strptime('1', '%d')"
    text, _ = entry_of(project, app)
    for line in ("load_if_present('lzma')", "load_if_present('encodings.cp1252')", "load_if_present('_strptime')"):
        assert line in text.splitlines()


def test_the_entry_imports_what_functions_of_packages_import(project):
    files = {
        "packages/pack/__init__.py": "from . import core\n",
        "packages/pack/core.py": "def f():\n    from .late import x\n    import textwrap, pytest, unittest\n",
        "packages/pack/late.py": "",
    }
    text, _ = entry_of(project, "import pack\n" + MODEL + "pass", **files)
    assert "load_if_present('pack.late', 'x')" in text
    assert "load_if_present('textwrap')" in text
    assert "'pytest'" not in text and "'unittest'" not in text


# Errors of componentize-py

TRACE = """Traceback (most recent call last):
  File "/tool", line 1, in <module>
AssertionError: Traceback (most recent call last):
  File "/0/hostler_entry.py", line 9, in <module>
    from app import Model
  File "/0/app.py", line 4, in <module>
    f()
    ~^^
  File "/0/helpers.py", line 3, in f
    return x["a"]
KeyError: 'a'


Caused by:
    KeyError: 'a'
"""


def test_a_traceback_is_shortened(project):
    module, local, _ = project("import hostler_plugin\nclass Model: pass")
    error = explained(TRACE, module, local, ["stage/app", "stage/sdk"], {9: None})
    assert str(error) == "cannot build helpers.py:3: KeyError: 'a'"
    assert error.mend == "at app.py:4\nat helpers.py:3 (f)"


def test_a_host_call_at_import_is_found(project):
    module, local, _ = project(HEAD + "n = hostler.config('n')\nclass Model: pass")
    text = "AssertionError: \n\nCaused by:\n    1: called trapping stub: wasi:config/store@0.2.0-rc.1#get"
    error = explained(text, module, local, ["stage/app", "stage/sdk"], {})
    assert str(error).startswith("cannot build app.py:2: it calls the host (`config`)")


def test_an_import_that_a_function_needs_is_named_by_its_place(project):
    module, local, _ = project(MODEL + "from json import dumbs")
    text = (
        'AssertionError: Traceback (most recent call last):\n  File "/0/hostler_entry.py", line 15, in <module>\n'
        '  File "/0/hostler_entry.py", line 5, in load\nImportError: cannot import name \'dumbs\' from \'json\'\n'
        "\n\nCaused by:\n    ImportError"
    )
    error = explained(text, module, local, ["stage/app", "stage/sdk"], {15: "app.py:4"})
    assert str(error) == "cannot build app.py:4: ImportError: cannot import name 'dumbs' from 'json'"


# Methods


@pytest.mark.parametrize(
    "body, words",
    [
        ("    def predcit(self, request, inputs): pass", ["app.py:4", "no method `predict`", "rename `predcit`"]),
        ("    def other(self): pass", ["app.py:2", "no method `predict`", "def predict(self, request, inputs)"]),
        ("    def predict(self, inputs): pass", ["app.py:4", "`Model.predict` has the parameters (self, inputs)"]),
        ("    def predict(self, request, inputs, *, scale): pass", ["app.py:4", "scale"]),
    ],
)
def test_methods_that_the_host_cannot_call_are_refused(project, body, words):
    app, _, role = project(f"{HEAD}class Model(hostler.Model):\n    def metadata(self): pass\n{body}\n")
    with pytest.raises(BuildError) as caught:
        check_methods(app, role)
    text = f"{caught.value}\n{caught.value.mend}"
    for word in words:
        assert word in text, text


@pytest.mark.parametrize(
    "source",
    [
        "class Model(hostler.Model):\n    def metadata(self): pass\n    def predict(self, *all): pass",
        "class Model(hostler.Model):\n    def metadata(self): pass\n    predict = print",
        "class Model(hostler.Model):\n    def metadata(self): pass\n    def predict(self, request, inputs, more=1): pass",
        "class Base(hostler.Model): pass\nclass Model(Base): pass",
        "class Model(hostler.Model):\n    if True:\n        def predict(self, request, inputs): pass",
        "class Transformer(hostler.Transformer):\n    def preprocess(self, request, input): pass\n"
        "    @staticmethod\n    def postprocess(request, outputs): pass",
    ],
)
def test_methods_that_the_source_does_not_tell_are_left_to_python(project, source):
    app, _, role = project(HEAD + source)
    check_methods(app, role)
