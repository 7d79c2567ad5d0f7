"""Refuses what cannot work in a component, before it is built."""

import ast
import os
import sys

from ._errors import BuildError
from ._source import find_module, is_main

ONNX = (
    "move the computation into a small ONNX graph and call it with hostler.get_model(name).call(inputs),\n"
    "or write the plugin in Rust"
)
_ELEMENTS = "use hostler.elements(tensor) and lists for small tensors; for large ones\n" + ONNX
_HTTP = "call HTTP servers with hostler_http.fetch(url)"
_JSON = "use the standard library's json"
_CHECKS = "check the values in Python, with dataclasses or attrs, or write the plugin in Rust"
_CONCURRENCY = "start calls with model.start(inputs) and wait with hostler.wait_any; the host runs requests in parallel"

# Packages with native code, or which need sockets or threads, and what to do instead.
UNSUPPORTED = {
    **dict.fromkeys(("numpy", "pandas", "scipy", "sklearn", "polars", "pyarrow", "numba"), _ELEMENTS),
    **dict.fromkeys(
        ("torch", "tensorflow", "jax", "onnxruntime", "transformers", "tokenizers", "PIL", "cv2", "spacy"), ONNX
    ),
    **dict.fromkeys(("pydantic", "pydantic_core"), _CHECKS),
    **dict.fromkeys(("orjson", "ujson", "msgspec"), _JSON),
    **dict.fromkeys(("requests", "httpx", "aiohttp", "urllib3", "grpc", "websockets"), _HTTP),
    "regex": "use the standard library's re",
    "lxml": "use the standard library's xml.etree.ElementTree",
    "cryptography": "use the standard library's hashlib and hmac",
    **dict.fromkeys(("redis", "psycopg", "psycopg2", "sqlalchemy"), "keep data with hostler.state, or " + _HTTP),
}

# Calls that fail at run time although the import succeeds: the reason, and what to do instead.
_THREADS = ("a component has no threads", _CONCURRENCY)
_PROCESSES = ("a component cannot start processes", "write the work in Python, or " + _HTTP)
_SOCKETS = ("a component has no sockets", _HTTP)
_FILES = ("a component has no writable files", "keep data with hostler.state, and bytes in memory with io.BytesIO")
_LOOP = (
    "a component has no event loop of its own",
    "write a StreamingModel, whose methods are async, or wait with hostler.wait_any",
)
FAILING = {
    **dict.fromkeys(("threading.Thread", "threading.Timer", "_thread.start_new_thread"), _THREADS),
    **dict.fromkeys(
        ("concurrent.futures.ThreadPoolExecutor", "concurrent.futures.ProcessPoolExecutor", "asyncio.to_thread"),
        _THREADS,
    ),
    **dict.fromkeys(("os.system", "os.popen", "os.fork", "os.execv", "subprocess", "multiprocessing"), _PROCESSES),
    **dict.fromkeys(
        ("socket.socket", "socket.create_connection", "urllib.request.urlopen", "urllib.request.urlretrieve"), _SOCKETS
    ),
    **dict.fromkeys(("http.client.HTTPConnection", "http.client.HTTPSConnection", "asyncio.open_connection"), _SOCKETS),
    "tempfile": _FILES,
    **dict.fromkeys(("asyncio.run", "asyncio.new_event_loop", "asyncio.Runner"), _LOOP),
}

# Of this SDK, of componentize-py, and of newer Pythons than the one that runs the build.
_PROVIDED = {
    "hostler_plugin", "hostler_concurrent", "hostler_http", "wit_world", "componentize_py_types",
    "componentize_py_async_support", "componentize_py_runtime", "poll_loop", "compression", "annotationlib",
}  # fmt: skip
_OUTSIDE = {"hostler_testing": "it is for unit tests", "hostler_build": "it is the build", "pytest": "it is for tests"}


def check_imports(local, folders, packages):
    """Refuses imports of modules that do not exist or that cannot work. `folders` are all folders
    of modules, and `packages` those of installed packages."""
    for module in local:
        for one in module.imports:
            top = one.module.partition(".")[0]
            if one.optional or find_module(top, [os.path.dirname(local[0].path)]):
                continue
            where = f"cannot build {module.at(one.line)}"
            if top in _OUTSIDE:
                raise BuildError(f"{where}: `{top}` cannot be part of a component: {_OUTSIDE[top]}",
                                 "import it in test_app.py only")
            if top in UNSUPPORTED and not _is_for_components(top, packages):
                raise BuildError(f"{where}: `{top}` does not work in a component: {_reason(top, packages)}",
                                 UNSUPPORTED[top])
            if top in _PROVIDED or top in sys.stdlib_module_names or find_module(top, folders):
                continue
            raise BuildError(f"{where}: there is no module `{top}`",
                             f"if it is a package, add it to requirements.txt; if it is a file of yours, put {top}.py"
                             f" beside {os.path.basename(local[0].path)}")


def _reason(top, packages):
    if UNSUPPORTED[top].endswith(_HTTP):
        return "it needs sockets, and a component has none"
    file = native_file(top, packages)
    code = f" ({file})" if file else ""
    return f"it needs native code{code}"


def _native(top, packages):
    """Yields the native extensions of a package, relative to the folder of packages."""
    for folder in packages:
        for root, _, files in os.walk(os.path.join(folder, top)):
            for file in files:
                if file.endswith((".so", ".pyd")):
                    yield os.path.relpath(os.path.join(root, file), folder)
        if os.path.isdir(folder):
            for file in os.listdir(folder):
                if file.startswith(top + ".") and file.endswith((".so", ".pyd")):
                    yield file


def native_file(top, packages):
    """Returns a native extension of a package that no component can load, or None."""
    return next((file for file in sorted(_native(top, packages)) if "wasi" not in file), None)


def _is_for_components(top, packages):
    return any("wasm32-wasi" in file for file in _native(top, packages))


def check_calls(local):
    """Refuses uses of what always fails at run time."""
    for module in local:
        for node in _reachable(module.tree):
            for used in _used(node):
                name = module.dotted(used)
                known = name and next(
                    (one for one in (name, name.partition(".")[0]) if one in FAILING and "." in name), None
                )
                if known:
                    reason, mend = FAILING[known]
                    raise BuildError(f"cannot build {module.at(used.lineno)}: `{name}` always fails: {reason}", mend)


def _used(node):
    """Returns the expressions that a node calls or derives a class from."""
    if isinstance(node, ast.Call):
        return [node.func]
    return node.bases if isinstance(node, ast.ClassDef) else []


def _reachable(tree):
    """Yields all nodes but those that run only when a module is the program."""
    queue = [tree]
    while queue:
        node = queue.pop()
        yield node
        if not (isinstance(node, ast.If) and is_main(node.test)):
            queue.extend(reversed(list(ast.iter_child_nodes(node))))


def host_call_at_import(local):
    """Returns the place of the first call of the SDK that needs a host and runs at import, with the
    name of what is called. None if there is none that can be seen."""
    for module in reversed(local):
        for statement in module.tree.body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for node in _at_import(statement):
                name = isinstance(node, ast.Call) and module.dotted(node.func)
                if name and name.startswith(("hostler_plugin.", "hostler_http.")):
                    short = name.partition(".")[2]
                    if short.partition(".")[0] in _HOST_CALLS:
                        return module.at(node.lineno), short
    return None


_HOST_CALLS = {
    "asset", "config", "config_number", "state", "count", "gauge", "log", "get_model", "sleep", "tensor", "Tensor",
    "Counter", "Gauge", "Histogram", "fetch",
}  # fmt: skip


def _at_import(node):
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _at_import(child)
