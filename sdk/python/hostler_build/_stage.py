"""A temporary folder with what componentize-py may read.

The project's folder itself is not passed to componentize-py, because it would also read a virtual
environment, the tests and the output in it, and write its caches there.
"""

import os
import shutil

from ._errors import BuildError

_SDK = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SDK_PACKAGES = ("hostler_plugin", "hostler_concurrent", "hostler_http")
_FOLDERS_LEFT_OUT = {"__pycache__", "build", "dist", "node_modules", "target"}
_FILES_LEFT_OUT = (".wasm", ".onnx", ".pyc")
_FILES_MAX = 20_000


def stage(folder, app, local, packages):
    """Fills the folder, and returns the paths to search for modules. The plugin's path is first."""
    project = os.path.dirname(os.path.abspath(app.path))
    sources = os.path.join(folder, "app")
    count = 0
    for root, folders, files in os.walk(project):
        folders[:] = [name for name in folders if not _is_left_out(os.path.join(root, name), packages)]
        for file in files:
            if file.startswith(".") or file.endswith(_FILES_LEFT_OUT):
                continue
            count += 1
            if count > _FILES_MAX:
                raise BuildError(
                    f"cannot build {app.shown}: its folder has more than {_FILES_MAX} files",
                    "put the plugin into a folder of its own",
                )
            _place(os.path.join(root, file), project, sources)
    for module in local:
        # Below a link to a folder, which is not followed otherwise.
        _place(os.path.abspath(module.path), project, sources)
    sdk = os.path.join(folder, "sdk")
    for package in _SDK_PACKAGES:
        shutil.copytree(os.path.join(_SDK, package), os.path.join(sdk, package),
                        ignore=shutil.ignore_patterns("__pycache__"))
    # componentize-py adds the packages of the virtual environment that it finds: an empty one here,
    # so that a component does not depend on what is installed beside it.
    os.makedirs(os.path.join(folder, "venv", "lib", "site-packages"))
    return [sources, sdk, *packages]


def _is_left_out(path, packages):
    name = os.path.basename(path)
    return (
        name.startswith(".")
        or name in _FOLDERS_LEFT_OUT
        or os.path.exists(os.path.join(path, "pyvenv.cfg"))
        or os.path.exists(os.path.join(path, "hostler_plugin", "__init__.py"))
        or os.path.abspath(path) in packages
    )


def _place(file, project, sources):
    target = os.path.join(sources, os.path.relpath(file, project))
    if os.path.exists(target) or not os.path.isfile(file):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        os.link(os.path.realpath(file), target)
    except OSError:
        shutil.copyfile(file, target)
