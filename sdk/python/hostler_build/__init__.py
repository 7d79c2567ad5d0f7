"""Builds a plugin in Python: makes a WebAssembly component of `app.py`.

    python -m hostler_build app.py --wit sdk/wit -o build/app.wasm

Reads the source without executing it, finds the class of the role, chooses the WIT world, refuses
what cannot work in a component, and runs componentize-py, which imports the modules once.
"""

import os
import shutil
import tempfile

from ._checks import check_calls, check_imports
from ._component import Failure, componentize, explained
from ._entry import NAME, entry
from ._errors import BuildError
from ._methods import check_methods
from ._source import find_module, read_all, read_app
from ._stage import stage
from ._wit import check_world, find_wit, wit_arguments
from ._world import role_of

__all__ = ["BuildError", "build", "plan"]


def plan(source, packages=(), world=None):
    """Reads the sources. Returns the module of the plugin, all modules of the project, and the
    role; raises a `BuildError` for what cannot be built."""
    app = read_app(source)
    project = os.path.dirname(os.path.abspath(source))
    local = read_all([app], [project], is_local=True)
    role = role_of(app, local, world)
    check_imports(local, [project, *packages], packages)
    check_calls(local)
    return app, local, role


def build(source, output, wit=None, packages=(), world=None):
    """Builds a component. Returns its role, and what the source printed while it was imported."""
    packages = [os.path.abspath(path) for path in packages]
    app, local, role = plan(source, packages, world)
    check_methods(app, role)
    wit = find_wit(wit)
    check_world(wit, role.world)
    arguments = wit_arguments(wit, role.world)
    bundled = read_all(local, packages, is_local=False)[len(local) :]
    find = lambda name: find_module(name, packages)  # noqa: E731
    text, places = entry(app, role, local, bundled, find)
    try:
        os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
        # Beside the output, so that files can be linked.
        folder = tempfile.mkdtemp(prefix=".hostler-build-", dir=os.path.dirname(os.path.abspath(output)))
    except OSError as error:
        raise BuildError(f"cannot write {output}: {error}", "give another file with --output") from None
    try:
        existing = [path for path in packages if os.path.isdir(path)]
        paths = stage(folder, app, local, existing)
        with open(os.path.join(paths[0], f"{NAME}.py"), "w", encoding="utf-8") as file:
            file.write(text)
        new = os.path.join(folder, "new.wasm")
        try:
            printed = componentize(arguments, role.world, paths, new, folder)
        except Failure as failure:
            raise explained(str(failure), app, local, paths, places) from None
        os.replace(new, output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return role, printed
