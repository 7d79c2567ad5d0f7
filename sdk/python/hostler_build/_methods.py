"""Refuses a class of a role whose methods the host could not call: a method that is missing or
misspelt, or that has a wrong number of parameters. It would fail only in a request otherwise."""

import ast

from ._errors import BuildError, did_you_mean

# The parameters of each method after `self`. Methods in brackets may be left out.
_METHODS = {
    "hostler_plugin.Transformer": {"[metadata]": "", "preprocess": "request, input", "postprocess": "request, outputs"},
    "hostler_plugin.Model": {"metadata": "", "predict": "request, inputs"},
    "hostler_plugin.OptionalInputs": {"names": ""},
    "hostler_plugin.Executor": {"submit": "request, inputs, model", "[submit_batch]": "requests, inputs, model"},
    "hostler_concurrent.StreamingModel": {
        "[initialize]": "", "metadata": "", "execute": "request, inputs, responses", "[ready]": "", "[finalize]": "",
    },
}  # fmt: skip


def check_methods(app, role):
    """Checks the classes of a role that derive from the SDK's class alone and have no decorator: of
    others, the source does not show all methods."""
    for node in app.tree.body:
        if not isinstance(node, ast.ClassDef) or node.name not in role.classes or node.decorator_list or node.keywords:
            continue
        [base] = [app.dotted(one) for one in node.bases] if len(node.bases) == 1 else [None]
        if base in _METHODS:
            _check(app, node, {name.strip("[]"): (text, "[" in name) for name, text in _METHODS[base].items()})


def _check(app, node, methods):
    found = {}
    for statement in node.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found[statement.name] = statement
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            found.update((target.id, None) for target in targets if isinstance(target, ast.Name))
        elif not isinstance(statement, (ast.Expr, ast.Pass, ast.ClassDef)):
            # A method may be defined under a condition.
            return
    for name, (parameters, is_optional) in methods.items():
        if name not in found:
            if not is_optional:
                raise _missing(app, node, name, parameters, found, methods)
        elif found[name] is not None and not found[name].decorator_list:
            _check_parameters(app, node, found[name], parameters)


def _missing(app, node, name, parameters, found, methods):
    written = f"write `def {name}({_all(parameters)})`"
    for other, function in found.items():
        if function is not None and other not in methods and did_you_mean(other, [name]):
            return BuildError(
                f"cannot build {app.at(function.lineno)}: `{node.name}` has no method `{name}`, but one `{other}`",
                f"rename `{other}` to `{name}`",
            )
    return BuildError(f"cannot build {app.at(node.lineno)}: `{node.name}` has no method `{name}`", written)


def _check_parameters(app, node, function, parameters):
    given = function.args
    names = [one.arg for one in given.posonlyargs + given.args]
    wanted = len(parameters.split(", ")) + 1 if parameters else 1
    least = len(names) - len(given.defaults)
    required = [one.arg for one, default in zip(given.kwonlyargs, given.kw_defaults) if default is None]
    if required or wanted < least or (wanted > len(names) and not given.vararg):
        shown = ", ".join(names + required)
        raise BuildError(
            f"cannot build {app.at(function.lineno)}: `{node.name}.{function.name}` has the parameters ({shown}), "
            f"but the host calls it with ({_all(parameters)})",
            f"write `def {function.name}({_all(parameters)})`",
        )


def _all(parameters):
    return f"self, {parameters}" if parameters else "self"
