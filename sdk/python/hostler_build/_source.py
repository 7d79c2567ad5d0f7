"""Reads the sources of a plugin with `ast`. Nothing of them is executed.

A project is `app.py` and the local modules that it imports: files beside it, and folders. Packages
are read in the same way, because their imports inside functions must happen at the build too.
"""

import ast
import os
from dataclasses import dataclass, field

from ._errors import BuildError

_IMPORT_ERRORS = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
_IMPORTING = {"importlib.import_module", "import_module", "__import__"}


@dataclass
class Import:
    """One import statement. `names` are what `from module import names` names; `("*",)` is one."""

    module: str
    names: tuple
    line: int
    in_function: bool
    # Whether the code continues without the module.
    optional: bool


@dataclass
class Module:
    name: str
    path: str
    # The path in messages.
    shown: str
    text: str
    tree: ast.Module
    is_local: bool
    imports: list = field(default_factory=list)
    # The dotted name behind each name that an import binds.
    aliases: dict = field(default_factory=dict)

    def at(self, line):
        return f"{self.shown}:{line}"

    def dotted(self, node):
        """Returns the full dotted name of an expression such as `t.Thread`, or None."""
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        return ".".join([self.aliases.get(node.id, node.id), *reversed(parts)])


def read_app(path):
    """Returns the module of the plugin's source."""
    if not os.path.isfile(path):
        raise BuildError(f"cannot build {path}: there is no such file", "name the module with the role, such as app.py")
    name = os.path.splitext(os.path.basename(path))[0]
    if not path.endswith(".py") or not name.isidentifier():
        raise BuildError(
            f"cannot build {path}: its name is not that of a Python module", "name it like a module, such as app.py"
        )
    return read_module(name, path, is_local=True)


def read_module(name, path, is_local):
    shown = os.path.relpath(path) if is_local else path
    try:
        with open(path, "rb") as file:
            content = file.read()
        tree = ast.parse(content, filename=path)
    except SyntaxError as error:
        if not is_local:
            return None
        line = (error.text or "").rstrip()
        text = f"cannot build {shown}:{error.lineno or 1}: {type(error).__name__}: {error.msg}"
        raise BuildError(text, line.strip()) from None
    except (OSError, ValueError) as error:
        if not is_local:
            return None
        raise BuildError(f"cannot read {shown}: {error}", "the source must be a text in UTF-8") from None
    module = Module(name, path, shown, content.decode("utf-8", "replace"), tree, is_local)
    _Imports(module).visit(tree)
    return module


def find_module(name, folders):
    """Returns the file of a module below one of the folders: a module, the `__init__.py` of a
    package, or the folder of a package without one. None if there is none."""
    relative = name.replace(".", os.sep)
    for folder in folders:
        path = os.path.join(folder, relative)
        for file in (os.path.join(path, "__init__.py"), path + ".py"):
            if os.path.isfile(file):
                return file
        if os.path.isdir(path) and "." not in os.path.basename(path) and _has_python(path):
            return path
    return None


def _has_python(folder):
    try:
        return any(name.endswith(".py") for name in os.listdir(folder))
    except OSError:
        return False


def read_all(app, folders, is_local):
    """Returns all modules that these modules import, directly or not, and that are below the
    folders. `app` is a list of modules, which the result begins with."""
    found = {module.name: module for module in app}
    queue = list(app)
    while queue:
        module = queue.pop()
        for one in module.imports:
            for name in wanted(one):
                if name in found:
                    continue
                path = find_module(name, folders)
                if path is None or os.path.isdir(path):
                    continue
                read = read_module(name, path, is_local)
                if read is not None:
                    found[name] = read
                    queue.append(read)
    return list(found.values())


def wanted(one):
    """Returns the names of all modules that an import may load: with its packages, and with the
    names that it takes, which may be modules."""
    parts = one.module.split(".")
    names = [".".join(parts[: count + 1]) for count in range(len(parts))]
    return names + [f"{one.module}.{name}" for name in one.names if name != "*"]


def is_main(test):
    """Returns whether a condition is `__name__ == "__main__"`."""
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


class _Imports(ast.NodeVisitor):
    """Collects the imports of a module, and the names that they bind."""

    def __init__(self, module):
        self.module = module
        self.is_package = os.path.basename(module.path) == "__init__.py"
        self.in_function = False
        self.optional = False

    def _within(self, nodes, **flags):
        before = {name: getattr(self, name) for name in flags}
        for name, value in flags.items():
            setattr(self, name, value)
        for node in nodes:
            self.visit(node)
        for name, value in before.items():
            setattr(self, name, value)

    def visit_FunctionDef(self, node):
        self._within(ast.iter_child_nodes(node), in_function=True)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_If(self, node):
        test = ast.unparse(node.test)
        if is_main(node.test) or test.rpartition(".")[2] == "TYPE_CHECKING":
            self._within(node.orelse)
            return
        depends = any(word in test for word in ("version_info", "platform", "find_spec", "os.name"))
        self._within(node.body + node.orelse, optional=self.optional or depends)

    def visit_Try(self, node):
        catches = any(
            handler.type is None
            or any(getattr(one, "id", getattr(one, "attr", "")) in _IMPORT_ERRORS for one in ast.walk(handler.type))
            for handler in node.handlers
        )
        self._within(node.body, optional=self.optional or catches)
        # What replaces a module that is missing may be missing too if the module is there.
        self._within(node.handlers, optional=self.optional or catches)
        self._within(node.orelse + node.finalbody)

    visit_TryStar = visit_Try

    def _add(self, module, names, line):
        if module:
            one = Import(module, tuple(names), line, self.in_function, self.optional)
            self.module.imports.append(one)

    def visit_Import(self, node):
        for alias in node.names:
            self._add(alias.name, (), node.lineno)
            if alias.asname:
                self.module.aliases[alias.asname] = alias.name
            else:
                top = alias.name.partition(".")[0]
                self.module.aliases[top] = top

    def visit_ImportFrom(self, node):
        base = node.module or ""
        if node.level:
            parts = self.module.name.split(".")
            parts = parts[: len(parts) - node.level + (1 if self.is_package else 0)]
            base = ".".join(parts + ([node.module] if node.module else []))
        self._add(base, [alias.name for alias in node.names], node.lineno)
        for alias in node.names:
            self.module.aliases[alias.asname or alias.name] = f"{base}.{alias.name}"

    def visit_Call(self, node):
        if self.module.dotted(node.func) in _IMPORTING and len(node.args) == 1:
            [name] = node.args
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and not name.value.startswith("."):
                self._add(name.value, (), node.lineno)
        self.generic_visit(node)
