"""Builds components with componentize-py, if it is installed. Each build takes some 10 s."""

import importlib.util
import os
import subprocess
import sys

import pytest

import hostler_build
from hostler_build import BuildError, build
from hostler_build.__main__ import main

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("componentize_py") is None, reason="componentize-py is not installed"
)

APP = """import hostler_plugin as hostler
from pack import table
import installed

class Model(hostler.Model):
    def metadata(self):
        x = hostler.spec("x", "FP32", [-1])
        return hostler.ModelMetadata([x], [x])

    def predict(self, request, inputs):
        import late
        return late.f(inputs)
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_a_component_has_what_the_plugin_imports_and_nothing_else(write, tmp_path, capfd):
    files = {
        "app.py": APP,
        "late.py": "MARK = 'mark of' ' late'\ndef f(inputs):\n    import colorsys\n    return inputs\n",
        "pack/__init__.py": "",
        "pack/table.py": "MARK = open('/0/pack/names.txt').read()\n",
        "pack/names.txt": "mark of names",
        "build/packages/installed/__init__.py": "def f():\n    from . import inner\n",
        "build/packages/installed/inner.py": "MARK = 'mark of' ' inner'\n",
        "build/packages/installed/fast.cpython-311-x86_64-linux-gnu.so": "",
        ".venv/pyvenv.cfg": "",
        ".venv/lib/python3.11/site-packages/numpy/__init__.py": "MARK = 'mark of' ' venv'\n",
        "test_app.py": "MARK = 'mark of' ' tests'\n",
    }
    write(**files)
    assert main(["app.py", "-o", "build/x.wasm", "--path", "build/packages"]) == 0
    assert "role Model, world model-plugin" in capfd.readouterr().out
    content = (tmp_path / "build/x.wasm").read_bytes()
    for mark in (b"mark of late", b"mark of names", b"mark of inner", b"rgb_to_hsv"):
        assert mark in content, mark
    for mark in (b"mark of venv", b"mark of tests"):
        assert mark not in content, mark
    # Nothing is left behind.
    assert sorted(os.listdir(tmp_path / "build")) == ["packages", "x.wasm"]
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize(
    "files, message, mend",
    [
        ({"late.py": "x = {}\ny = x['a']\n"}, "cannot build late.py:2: KeyError: 'a'", "at app.py:11"),
        (
            {"late.py": "import hostler_plugin\nx = hostler_plugin.config('a')\n"},
            "cannot build late.py:2: it calls the host",
            "methods of the plugin",
        ),
        (
            {
                "late.py": "import native\n",
                "build/packages/native/__init__.py": "from native import _native\n",
                "build/packages/native/_native.cpython-311-x86_64-linux-gnu.so": "",
            },
            "cannot build late.py:1: `native` does not work in a component: it needs native code",
            "written in Python alone",
        ),
    ],
)
def test_an_error_at_import_names_the_place(write, tmp_path, files, message, mend):
    write(**{"app.py": APP, "pack/__init__.py": "", "pack/table.py": "", "build/packages/installed.py": "", **files})
    with pytest.raises(BuildError) as caught:
        build("app.py", "build/x.wasm", packages=["build/packages"])
    assert message in str(caught.value) and mend in caught.value.mend, (caught.value, caught.value.mend)
    assert not (tmp_path / "build/x.wasm").exists()


def test_a_streaming_model_is_built_for_its_own_contract(write, tmp_path):
    write(**{"app.py": "import hostler_concurrent\nclass StreamingModel(hostler_concurrent.StreamingModel):\n"
             "    def metadata(self): pass\n    async def execute(self, request, inputs, responses): pass\n"})
    role, _ = build("app.py", "x.wasm")
    assert role.world == "hostler:concurrent/streaming-model-plugin"
    assert (tmp_path / "x.wasm").exists()


def test_it_runs_as_a_module(write):
    write(**{"app.py": "class Modle: pass"})
    environment = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(hostler_build.__file__)))
    done = subprocess.run([sys.executable, "-m", "hostler_build"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot build app.py:1: the class `Modle` is not a role")
