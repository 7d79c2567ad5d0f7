"""The role of a plugin, and its WIT world. A component has all imports of its world, and the host
sees from them whether its calls may wait; so the world is the smallest one that fits."""

import ast
from dataclasses import dataclass

from ._errors import BuildError, did_you_mean
from ._source import is_main

ROLES = ("Transformer", "Model", "Executor", "StreamingModel")
OPTIONAL = "OptionalInputs"
STREAMING_WORLD = "hostler:concurrent/streaming-model-plugin"

# What of the SDK needs the imports `models` and `callables`.
_CALLING = ("get_model", "sleep", "wait_any", "outcome", "call_within", "models", "callables")


@dataclass
class Role:
    name: str
    # The names that the component is made of.
    classes: tuple
    world: str


def role_of(app, local, given=None):
    """Returns the role that the module `app` defines. `local` are all modules of the project, and
    `given` is the world that the author chose, or None."""
    classes = _top_level(app, local)
    roles = [name for name in ROLES if name in classes]
    if len(roles) > 1:
        both = " and ".join(f"`{name}` (line {classes[name]})" for name in roles)
        raise BuildError(f"cannot build {app.shown}: it defines {both}, and a plugin has one role",
                         "build one module for each role")
    if not roles:
        raise _missing(app, classes)
    [role] = roles
    optional = OPTIONAL in classes
    if optional and role != "Model":
        raise BuildError(f"cannot build {app.at(classes[OPTIONAL])}: only a model has a class `{OPTIONAL}`",
                         "remove the class")
    if role == "Model" and not optional:
        for name, line in classes.items():
            if _derives(app, name, OPTIONAL) or (name not in ROLES and did_you_mean(name, [OPTIONAL])):
                raise BuildError(f"cannot build {app.at(line)}: the host does not find the class `{name}`",
                                 f"name it `{OPTIONAL}`")
    world = given or _smallest(role, optional, local)
    return Role(role, (role, OPTIONAL) if optional else (role,), world)


def _smallest(role, optional, local):
    outbound = [(module, one) for module in local for one in module.imports if one.module == "hostler_http"]
    if role == "StreamingModel":
        if outbound:
            module, one = outbound[0]
            raise BuildError(
                f"cannot build {module.at(one.line)}: hostler_http is not available to streaming models",
                "call the HTTP server in a model, and that model with concurrent.model(name)",
            )
        return STREAMING_WORLD
    base = f"optional-{role.lower()}" if optional else role.lower()
    if outbound:
        return f"{base}-outbound-plugin"
    if role != "Executor" and any(_calls_models(module) for module in local):
        return f"calling-{base}-plugin"
    return f"{base}-plugin"


def _calls_models(module):
    names = {f"hostler_plugin.{name}" for name in _CALLING}
    names |= {"wit_world.imports.models", "wit_world.imports.callables"}
    if any(name in names for name in module.aliases.values()):
        return True
    return any(isinstance(node, ast.Attribute) and module.dotted(node) in names for node in ast.walk(module.tree))


def _statements(body):
    """Yields the statements that run when a module is imported, but not those of classes."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and is_main(node.test):
            continue
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            for name in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, name, []))
            for handler in getattr(node, "handlers", []):
                yield from _statements(handler.body)


def _top_level(app, local):
    """Returns the lines of the classes at the top level, by name. A role that is imported from
    another module of the project counts as well."""
    names = {module.name for module in local}
    found = {}
    for node in _statements(app.tree.body):
        if isinstance(node, ast.ClassDef):
            found[node.name] = node.lineno
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = alias.asname or alias.name
                source = app.aliases.get(name, "").rpartition(".")[0]
                if name in (*ROLES, OPTIONAL) and source in names:
                    found[name] = node.lineno
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id in (*ROLES, OPTIONAL):
                    found[target.id] = node.lineno
    return found


def _derives(app, name, base):
    """Returns whether a class at the top level derives from this class of the SDK."""
    for node in _statements(app.tree.body):
        if isinstance(node, ast.ClassDef) and node.name == name:
            bases = [app.dotted(one) for one in node.bases]
            return any(one in (f"hostler_plugin.{base}", f"hostler_concurrent.{base}") for one in bases)
    return False


def _missing(app, classes):
    expected = "a plugin has a class `Transformer`, `Model`, `Executor` or `StreamingModel`"
    for name, line in classes.items():
        for role in ROLES:
            if _derives(app, name, role):
                return BuildError(f"cannot build {app.at(line)}: the host does not find the class `{name}`",
                                  f"name it `{role}`, as its base class")
    for name, line in classes.items():
        if close := did_you_mean(name, ROLES):
            return BuildError(f"cannot build {app.at(line)}: the class `{name}` is not a role{close}", expected)
    for node in ast.walk(app.tree):
        if isinstance(node, ast.ClassDef) and node.name in ROLES:
            return BuildError(
                f"cannot build {app.at(node.lineno)}: the class `{node.name}` is inside of another definition",
                "the class of the role must be at the top level of the module",
            )
    has = ", ".join(f"`{name}`" for name in classes)
    all_of_it = f"its only classes are {has}" if classes else "it has no class"
    return BuildError(
        f"cannot build {app.shown}: {all_of_it}, and {expected}",
        "write for example:\n  import hostler_plugin as hostler\n  class Model(hostler.Model): ...",
    )
