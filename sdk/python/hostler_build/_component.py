"""Runs componentize-py, and explains its errors."""

import importlib.util
import os
import re
import subprocess
import sys

from ._checks import UNSUPPORTED, host_call_at_import, native_file
from ._entry import NAME
from ._errors import BuildError

PINNED = "0.25.1"
_FRAME = re.compile(r'^  File "([^"]+)", line (\d+)(?:, in (.+))?$', re.MULTILINE)
_FRAMES_MAX = 6


def componentize(arguments, world, paths, output, folder):
    """Writes the component. Raises a `Failure` with what componentize-py says."""
    command = [*_tool(), *arguments, "-w", world, "componentize", NAME]
    for path in paths:
        command += ["-p", path]
    environment = dict(os.environ, VIRTUAL_ENV=os.path.join(folder, "venv"), RUST_BACKTRACE="0")
    done = subprocess.run([*command, "-o", output], env=environment, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise Failure(done.stderr + done.stdout)
    return done.stdout.replace("Component built successfully\n", "") + done.stderr


class Failure(Exception):
    """componentize-py failed."""


def _tool():
    if importlib.util.find_spec("componentize_py"):
        return [sys.executable, "-c", "import sys, componentize_py; sys.exit(componentize_py.script())"]
    raise BuildError(
        "cannot build: componentize-py is not installed for this Python",
        f"{sys.executable} -m pip install componentize-py=={PINNED}",
    )


def explained(text, app, local, paths, places):
    """Returns the error for the output of componentize-py. `paths` are the folders that it mounts
    as /0, /1, ..., and `places` the places of the source by the line of the entry module."""
    if stub := re.search(r"called trapping stub: (\S+?)#(\S+)", text):
        found = host_call_at_import(local)
        where, what = found or (app.shown, stub[2])
        return BuildError(
            f"cannot build {where}: it calls the host (`{what}`) while the module is imported, and there is no host then",
            "modules are imported once, when the component is built; call the host in the methods of the plugin",
        )
    text = re.sub(r"^.*?AssertionError: ", "", text, count=1, flags=re.DOTALL)
    text = text.partition("\nCaused by:")[0].strip("\n")
    if "No such world" in text or not (_FRAME.search(text) or re.match(r"\w+(Error|Exception)\b", text)):
        return BuildError(f"cannot build {app.shown}: componentize-py failed", "\n".join(text.splitlines()[:12]))
    frames = [(_shown(path, paths, places, int(line)), name) for path, line, name in _FRAME.findall(text)]
    thrown = _thrown(text)
    own = [place for place, _ in frames if place and not place.startswith(("<", "SDK "))]
    top = _package(text, paths)
    if top and (file := native_file(top, paths[2:])) and "Error: " in thrown and "Import" in text:
        own = [place for place in own if not place.startswith(tuple(paths[2:]))] or own
        mend = UNSUPPORTED.get(top, "use a package that is written in Python alone, or write the plugin in Rust")
        where = own[-1] if own else app.shown
        return BuildError(f"cannot build {where}: `{top}` does not work in a component: it needs native code ({file})", mend)
    where = own[-1] if own else app.shown
    trace = [f"at {place}" + (f" ({name})" if name and name != "<module>" else "") for place, name in frames if place]
    return BuildError(f"cannot build {where}: {thrown}", "\n".join(trace[-_FRAMES_MAX:] + _mend(thrown)))


def _mend(thrown):
    if missing := re.match(r"ModuleNotFoundError: No module named '([^'.]+)", thrown):
        return [f"if `{missing[1]}` is a package, add it to requirements.txt"]
    if thrown.startswith(("FileNotFoundError", "PermissionError")):
        return ["files beside the plugin can be read while it is imported; read others with hostler.asset(name)"]
    return []


def _shown(path, paths, places, line):
    """Returns a place as the author knows it, or None if it is not of interest."""
    found = re.match(r"/(\d+)/(.+)", path)
    if not found:
        return None
    index, rest = int(found[1]), found[2]
    if rest == f"{NAME}.py":
        return places.get(line)
    if index == 0:
        return f"{rest}:{line}"
    return f"SDK {rest}:{line}" if index == 1 else f"{os.path.join(paths[index], rest)}:{line}"


def _thrown(text):
    """Returns the last exception of a traceback, without its frames."""
    last = text.splitlines()
    starts = [index for index, line in enumerate(last) if re.match(r"[A-Za-z_][\w.]*(:|$)", line)
              and not line.startswith(("Traceback", "During", "The above"))]
    block = last[starts[-1]] if starts else last[-1]
    if re.match(r"\w*Error:\s*$", block) and starts:
        rest = [line for line in last[starts[-1] + 1 :] if line.strip()]
        block += " " + " ".join(rest[:1])
    return block


def _package(text, paths):
    """Returns the name of the package in which an import failed, or None."""
    for path, _, _ in reversed(_FRAME.findall(text)):
        if (found := re.match(r"/(\d+)/([^/]+)", path)) and int(found[1]) >= 2:
            return found[2].removesuffix(".py")
    return None
