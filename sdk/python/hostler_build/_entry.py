"""The generated module that a component is made of.

A component has only the modules that were imported when it was built: at run time there are no
files to import from. So the entry module imports the plugin, then everything that functions import,
and then names the classes of the role.
"""

import ast
import codecs
import sys

NAME = "hostler_entry"

_HEAD = '''\
def load(module, *names):
    found = __import__(module, None, None, names)
    for name in names:
        if name != "*" and not hasattr(found, name):
            raise ImportError(f"cannot import name {name!r} from {module!r}")

def load_if_present(module, *names):
    try:
        load(module, *names)
    except Exception:
        pass

'''

# What packages import inside functions, but not for a plugin.
_LEFT_OUT = {
    "asyncio", "ctypes", "doctest", "multiprocessing", "pdb", "pydoc", "sqlite3", "ssl", "subprocess", "tkinter",
    "turtle", "unittest", "webbrowser",
}  # fmt: skip
_BUILT_IN_CODECS = {"utf_8", "ascii", "iso8859_1", "utf_16", "utf_32", "utf_16_le", "utf_16_be", "utf_32_le", "utf_32_be"}


def entry(app, role, local, packages, find):
    """Returns the text of the entry module, and the place of the source by its line. `packages` are
    the modules of packages that are part of the component, and `find` tells whether they have a
    module."""
    lines = _HEAD.splitlines()
    places = {}

    def add(line, place):
        lines.append(line)
        places[len(lines)] = place

    add(f"from {app.name} import {', '.join(role.classes)}", None)
    seen = set()
    for module in local:
        for one in module.imports:
            names = tuple(name for name in one.names if name != "*")
            key = (one.module, names)
            if one.in_function and key not in seen:
                seen.add(key)
                add(_call("load_if_present" if one.optional else "load", *key), module.at(one.line))
    for module in packages:
        for one in module.imports:
            top = one.module.partition(".")[0]
            key = (one.module, tuple(name for name in one.names if name != "*"))
            is_known = find(top) or (top in sys.stdlib_module_names and top not in _LEFT_OUT)
            if one.in_function and is_known and key not in seen:
                seen.add(key)
                add(_call("load_if_present", *key), None)
    for name in sorted(_implied(local + packages)):
        add(_call("load_if_present", name, ()), None)
    return "\n".join(lines) + "\n", places


def _call(function, module, names):
    return f"{function}({', '.join(repr(text) for text in (module, *names))})"


def _implied(modules):
    """Returns the modules that Python itself imports when functions are called."""
    found = set()
    for module in modules:
        if "strptime" in module.text:
            found.add("_strptime")
        if "ElementTree" in module.text:
            found.add("xml.parsers.expat")
        for node in ast.walk(module.tree):
            name = isinstance(node, ast.Call) and getattr(node.func, "attr", None)
            if name in ("encode", "decode") and node.args and isinstance(node.args[0], ast.Constant):
                found |= _codec(node.args[0].value)
    return found


def _codec(name):
    try:
        module = codecs.lookup(name).name.replace("-", "_")
    except (LookupError, TypeError, ValueError):
        return set()
    return set() if module in _BUILT_IN_CODECS else {f"encodings.{module}"}
