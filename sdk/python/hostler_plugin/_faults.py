"""Turns what goes wrong in a plugin's method into an error of the contract.

Without this, componentize-py ends the instance on any exception that is not an `Err`, and on any
value of a wrong type. The base classes wrap the methods of their subclasses with the functions of
this module, so that such a fault ends only its own request, with `failed` and one line that names
the exception, the function and the line of the source. The traceback is in the host's log, at level
ERROR.
"""

from componentize_py_types import Err, Ok
from wit_world.imports import logging
from wit_world.imports.types import (
    Blob,
    Error,
    ErrorKind,
    ModelMetadata,
    Payload_Bytes,
    Payload_Json,
    Payload_Tensors,
    Tensor,
)

from hostler_plugin import _checks
from hostler_plugin._checks import kind_of

_FRAMES_MAX = 40
_NOT_IMPORTED = "; a component has only the modules that it imported when it was built: import it at the top of app.py"
_TEXT_MAX = 1000
_MADE = "made by hostler.tensor()"

_returned = _checks.spent(Tensor, "it was returned to the host; return t.renamed(t.name()) to keep the tensor t")
_sent = _checks.spent(Tensor, "it was sent to the host; send t.renamed(t.name()) to keep the tensor t")
_log = logging.log

# Whether a method of the plugin runs. A method that calls another one of its plugin, or the same
# one of its base class, gets the exceptions and the values of that method unchanged.
_is_running = False


def failed(message):
    return Err(Error(ErrorKind.FAILED, message, None))


class ReturnError(TypeError):
    """A method of the plugin returned something that the contract does not allow."""


# The guards around methods


def guard_methods(cls, guards):
    """Wraps those methods of a class that it defines itself. `guards` has a wrapper by method."""
    for name, guard in guards.items():
        if name in vars(cls):
            value = vars(cls)[name]
            function = value if hasattr(value, "__code__") else _descriptor(value)
            setattr(cls, name, guard(name, function))


def _descriptor(value):
    """Returns a static method, a class method or another callable object as a function."""
    bind = getattr(value, "__get__", None)
    return lambda self, *arguments: (bind(self, type(self)) if bind else value)(*arguments)


def fallible(check):
    """Returns a guard of a method that can return an error of the contract. `check` converts what
    the method returned, and raises a ReturnError."""

    def guard(name, function):
        def method(self, *arguments):
            global _is_running
            if _is_running:
                return function(self, *arguments)
            _is_running = True
            try:
                value = function(self, *arguments)
                try:
                    return check(value, name, self, arguments)
                except (ReturnError, ValueError, TypeError) as error:
                    raise report(error, returned_by=function) from error
            except Err as error:
                if (valid := valid_error(error)) is error:
                    _log_origin(error, function)
                    raise
                raise valid from error
            except MemoryError:
                # The memory of an instance does not shrink, so the instance must not go on.
                raise
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                raise report(error, function) from error
            finally:
                _is_running = False

        return _as_method(method, function)

    return guard


def infallible(check):
    """Returns a guard of a method that cannot return an error of the contract. An exception ends
    the instance, and its text is in the log."""

    def guard(name, function):
        def method(self, *arguments):
            try:
                return check(function(self, *arguments), name, self, arguments)
            except Err as error:
                text = getattr(error.value, "message", error.value)
                raise RuntimeError(f"{type(self).__name__}.{name} cannot return an error: {text}") from None

        return _as_method(method, function)

    return guard


def condition(name, function):
    """Guards a method that returns whether the plugin is ready. An exception means that it is not."""

    def method(self):
        try:
            return bool(function(self))
        except MemoryError:
            raise
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            report(error, function)
            return False

    return _as_method(method, function)


def _as_method(method, function):
    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        if hasattr(function, name):
            setattr(method, name, getattr(function, name))
    method.__wrapped__ = function
    return method


def valid_error(error):
    """Returns an `Err` as it is if it holds an error of the contract, and otherwise one that does."""
    value = error.value
    if isinstance(value, Error) and isinstance(value.kind, ErrorKind):
        if isinstance(value.message, str) and (value.field is None or isinstance(value.field, str)):
            value.message = _encodable(value.message)
            value.field = value.field and _encodable(value.field)
            return error
        hint = "message must be a str and field a str or None"
    else:
        hint = "raise hostler.failed(...), invalid(...) or another error of hostler_plugin"
    return report(TypeError(f"{_shown(value)} is not an error of the contract: {hint}"), None, error)


# The text of a fault


def report(error, function=None, traceback_of=None, returned_by=None, group=None):
    """Writes the traceback of an exception, or of the exception group that it is in, to the host's
    log, and returns the error for the caller: one line with the exception and its place in the
    source."""
    if returned_by is None:
        text = summary(error, function, traceback_of or error)
        lines = traceback_lines(group or traceback_of or error)
        if traceback_of is not None:
            lines.append(text)
    else:
        code = getattr(returned_by, "__code__", None)
        place = f" ({_file(code.co_filename)}:{code.co_firstlineno})" if code else ""
        text = _encodable(f"{error}{place}")
        lines = [text]
    _log(logging.Level.ERROR, "", _encodable("\n".join(lines)))
    return failed(text)


# Kinds of errors that are about the plugin rather than about the request.
_OWN_KINDS = (ErrorKind.FAILED, ErrorKind.NOT_FOUND)


def _log_origin(error, function):
    """Logs where in the plugin an error comes from that the SDK or a host call has raised, such as a
    missing asset: its message does not tell. The author's own errors are not logged."""
    if error.value.kind not in _OWN_KINDS:
        return
    code = None
    for frame, _ in _frames(error.__traceback__):
        code = frame.f_code
    if code is not None and (code.co_filename.startswith((_sdk, "<checked")) or "wit_world" in code.co_filename):
        _log(logging.Level.ERROR, "", summary(error, function))


def summary(error, function=None, traceback_of=None):
    """Returns an exception in one line: `ZeroDivisionError: division by zero (in predict,
    app.py:14)`."""
    place = _place((traceback_of or error).__traceback__, function)
    hint = _NOT_IMPORTED if isinstance(error, ModuleNotFoundError) else ""
    return _encodable(" ".join(_shown_error(error).split())[:_TEXT_MAX] + place + hint)


def _place(trace, function):
    """Returns the innermost frame in the plugin's own folder, or else the innermost one."""
    frames = [(frame.f_code, line) for frame, line in _frames(trace)]
    if not frames:
        return ""
    code = getattr(function, "__code__", None)
    folder = code.co_filename.rpartition("/")[0] if code else None
    own = [frame for frame in frames if frame[0].co_filename.rpartition("/")[0] == folder]
    code, line = (own or frames)[-1]
    return f" (in {code.co_name}, {_file(code.co_filename)}:{line})"


def _frames(trace):
    """Yields frames and lines, without those of this module."""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != _faults:
            yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


_faults = failed.__code__.co_filename
_sdk = _faults.rpartition("/")[0] + "/"


def _file(path):
    return path.rpartition("/")[2]


def _shown_path(path):
    """Returns a path without the number of the folder that componentize-py has read it from."""
    mount, _, rest = path[1:].partition("/")
    return rest if rest and path.startswith("/") and mount.isdigit() else path


def traceback_lines(error, depth=0):
    """Returns what Python prints for an exception, without the text of the source lines, which a
    component does not contain. It needs no module `traceback`."""
    lines = []
    cause, context = error.__cause__, error.__context__
    if depth < 5:
        if cause is not None:
            lines = [*traceback_lines(cause, depth + 1), "", _CAUSE, ""]
        elif context is not None and not error.__suppress_context__:
            lines = [*traceback_lines(context, depth + 1), "", _CONTEXT, ""]
    frames = [
        f'  File "{_shown_path(frame.f_code.co_filename)}", line {line}, in {frame.f_code.co_name}'
        for frame, line in _frames(error.__traceback__)
    ]
    if len(frames) > _FRAMES_MAX:
        half = _FRAMES_MAX // 2
        frames[half:-half] = [f"  [{len(frames) - 2 * half} more calls]"]
    lines += ["Traceback (most recent call last):", *frames, *_shown_error(error).split("\n")]
    lines += [str(note) for note in getattr(error, "__notes__", ())]
    if depth < 5:
        for part in getattr(error, "exceptions", ())[:5]:
            lines += ["  in the group:", *("  " + line for line in traceback_lines(part, depth + 1))]
    return lines


_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"


def _shown_error(error):
    if isinstance(error, Err) and isinstance(error.value, Error):
        name, text = f"Err {error.value.kind.name}", error.value.message
    else:
        name, text = type(error).__name__, _shown(error)
    return f"{name}: {text}" if text else name


def _shown(value):
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__} whose text cannot be formatted: {type(error).__name__}>"


def _encodable(text):
    """Returns a text that UTF-8 can express."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


# What methods return


def _wrong(name, self, expected, found):
    return ReturnError(f"{type(self).__name__}.{name} must return {expected}; {found}")


def _found(value):
    if value is None:
        return "it returned None: is a `return` missing?"
    if hasattr(value, "cr_code"):
        value.close()
        return "it returned a coroutine: define it with `def` instead of `async def`"
    if hasattr(value, "gi_code"):
        return "it returned a generator: it must not contain `yield`"
    if isinstance(value, Tensor):
        return "it returned one tensor: put it into a list"
    return f"it returned {kind_of(value)}"


def returned_tensors(value, name, self, arguments=()):
    """Checks a list of tensors that a method returned. The host owns them from now on."""
    expected = f"a list of tensors {_MADE}"
    if type(value) is not list:
        if not isinstance(value, tuple):
            raise _wrong(name, self, expected, _found(value))
        value = list(value)
    if problem := tensors_problem(value):
        raise _wrong(name, self, expected, problem)
    for tensor in value:
        tensor.__class__ = _returned
    return value


def tensors_problem(values):
    """Returns why a list cannot be given to the host as a list of tensors, or None."""
    for index, value in enumerate(values):
        if type(value) is not Tensor:
            if isinstance(value, Tensor):
                return f"item {index} is a tensor that must not be used: {value._spent}"
            return f"item {index} is {kind_of(value)}"
    if len(values) > 1 and len(set(map(id, values))) != len(values):
        ids = [id(value) for value in values]
        second = next(index for index, one in enumerate(ids) if one in ids[:index])
        return f"items {ids.index(ids[second])} and {second} are the same tensor: use t.renamed(...) for the second"
    return None


def sent_tensors(values):
    """Checks a list of tensors that is sent as a response. The host owns them from now on."""
    values = list(values) if hasattr(values, "__iter__") else [values]
    if problem := tensors_problem(values):
        raise TypeError(f"expected a list of tensors {_MADE}; {problem}")
    for tensor in values:
        tensor.__class__ = _sent
    return values


_check_text = _checks.checker(str)
_check_blob = _checks.checker(Blob)


def returned_payload(value, name, self, arguments=()):
    kind = type(value)
    if kind is Payload_Json:
        if not isinstance(value.value, str):
            hint = f"its Json holds {kind_of(value.value)}: use hostler.Json(json.dumps(value))"
            raise _wrong(name, self, "a Json with a text", hint)
        _check_text(value.value, f"{type(self).__name__}.{name}: the text of its Json")
    elif kind is Payload_Tensors:
        value.value = returned_tensors(value.value, name, self)
    elif kind is Payload_Bytes:
        if not isinstance(value.value, Blob):
            hint = f'its Bytes holds {kind_of(value.value)}: use hostler.Bytes(hostler.Blob("image/png", data))'
            raise _wrong(name, self, "Bytes with a Blob", hint)
        _check_blob(value.value, f"{type(self).__name__}.{name}: its Blob")
    else:
        hint = ""
        if isinstance(value, (dict, list, str, int, float)):
            hint = ": use hostler.Json(json.dumps(value))"
        raise _wrong(name, self, "a hostler.Json, Bytes or Tensors", _found(value) + hint)
    return value


_check_error = _checks.checker(Error)


def returned_batch(value, name, self, arguments):
    expected = "a list with Ok(tensors) or Err(Error(...)) for each request"
    if not isinstance(value, (list, tuple)):
        raise _wrong(name, self, expected, _found(value))
    if arguments and len(value) != len(arguments[0]):
        found = f"it returned {len(value)} for {len(arguments[0])} requests"
        raise _wrong(name, self, expected, found)
    for index, item in enumerate(value):
        if isinstance(item, Ok):
            if not isinstance(item.value, list):
                raise _wrong(name, self, expected, f"item {index} is Ok of {kind_of(item.value)}")
            if problem := tensors_problem(item.value):
                raise _wrong(name, self, expected, f"in item {index}, {problem}")
        elif isinstance(item, Err):
            _check_error(item.value, f"{type(self).__name__}.{name}: the error of item {index}")
        else:
            raise _wrong(name, self, expected, f"item {index} is {kind_of(item)}")
    every = [tensor for item in value if isinstance(item, Ok) for tensor in item.value]
    if problem := tensors_problem(every):
        raise _wrong(name, self, expected, f"over all items, {problem}")
    for tensor in every:
        tensor.__class__ = _returned
    return list(value)


def returned_metadata(cls, optional=False):
    """Returns a check of metadata of a class, or None if it is optional."""
    check = _checks.checker(cls)

    def check_metadata(value, name, self, arguments=()):
        if value is None and optional:
            return None
        if not isinstance(value, cls):
            raise _wrong(name, self, f"a hostler.{cls.__name__}", _found(value))
        return check(value, f"{type(self).__name__}.{name}: {cls.__name__}")

    return check_metadata


def returned_names(value, name, self, arguments=()):
    if not isinstance(value, (list, tuple)):
        raise _wrong(name, self, "a list of names of inputs", _found(value))
    return [_check_text(one, f"{type(self).__name__}.{name}: item {index}") for index, one in enumerate(value)]


TRANSFORMER = {
    "metadata": infallible(returned_metadata(ModelMetadata, optional=True)),
    "preprocess": fallible(returned_tensors),
    "postprocess": fallible(returned_payload),
}
MODEL = {
    "metadata": infallible(returned_metadata(ModelMetadata)),
    "predict": fallible(returned_tensors),
}
OPTIONAL_INPUTS = {"names": infallible(returned_names)}
EXECUTOR = {"submit": fallible(returned_tensors), "submit_batch": fallible(returned_batch)}
