"""Checks the arguments of host calls, and the use of handles that the host has taken back.

componentize-py ends the whole instance when an argument of a host call has a wrong type, or when a
handle was moved or closed. This module replaces the functions of `wit_world` whose arguments need a
check by functions that raise a Python exception first. The replacement happens once, at import,
which is when the component is built. Functions without arguments are not replaced and cost nothing.
"""

_FUNCTION = type(lambda: None)
_U64 = (0, 2**64 - 1)
_S64 = (-(2**63), 2**63 - 1)
# The parameters and fields of the contract that are signed. All other integers are unsigned.
_SIGNED = {"shape", "delta", "expected", "new"}


def guard(*modules):
    """Adds the checks to the functions and resources of modules of `wit_world.imports`."""
    for module in modules:
        if module is None or getattr(module, "_hostler_guarded", False):
            continue
        module._hostler_guarded = True
        for name, value in list(vars(module).items()):
            if getattr(value, "__module__", None) != module.__name__:
                continue
            if isinstance(value, _FUNCTION):
                setattr(module, name, _checked(value, f"{module.__name__.rsplit('.', 1)[-1]}.{name}"))
            elif isinstance(value, type) and hasattr(value, "__exit__"):
                _guard_resource(value)


def _guard_resource(resource):
    for name, value in list(vars(resource).items()):
        where = f"{resource.__name__}.{name}"
        if isinstance(value, classmethod):
            setattr(resource, name, classmethod(_checked(value.__func__, where)))
        elif isinstance(value, _FUNCTION) and not name.startswith("_"):
            setattr(resource, name, _checked(value, where))
    release = resource.__exit__
    closed = spent(resource, "its `with` block has ended")

    def __exit__(self, *reason):
        release(self, *reason)
        self.__class__ = closed

    resource.__exit__ = __exit__


def spent(resource, reason):
    """Returns the class of handles that must not be used any more, for the reason in `reason`. An
    object gets it by assignment to `__class__`: live handles need no check."""

    def refuse(self, *arguments, **options):
        raise ValueError(f"this {resource.__name__.lower()} must not be used: {reason}")

    names = [name for name in vars(resource) if not name.startswith("_")]
    body = {name: refuse for name in [*names, "__enter__"]}
    # The end of a `with` block around a handle that was moved meanwhile is not an error.
    body.update(__exit__=lambda self, *reason: None, _spent=reason, __module__=resource.__module__)
    return type(resource.__name__, (resource,), body)


def _checked(function, where):
    """Wraps a function so that each of its arguments is checked and converted."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    checks = {
        name: checker(annotation, name) for name, annotation in function.__annotations__.items() if name != "return"
    }
    if not checks:
        return function
    values = [f"_{name}({name}, {f'{where}: {name}'!r})" if name in checks else name for name in names]
    source = f"def {function.__name__}({', '.join(names)}):\n return _function({', '.join(values)})"
    scope = {"_function": function, **{f"_{name}": check for name, check in checks.items()}}
    exec(compile(source, "<checked host call>", "exec"), scope)
    wrapper = scope[function.__name__]
    wrapper.__defaults__ = function.__defaults__
    wrapper.__doc__, wrapper.__module__ = function.__doc__, function.__module__
    wrapper.__qualname__, wrapper.__annotations__ = function.__qualname__, function.__annotations__
    return wrapper


def checker(annotation, name=""):
    """Returns a function that checks a value against the annotation of the contract, converts what
    Python treats alike (a tuple to a list, a bytearray to bytes), and raises a TypeError or a
    ValueError that says where the value is wrong."""
    parameters = getattr(annotation, "__args__", ())
    if type(None) in parameters:
        inner = checker(parameters[0], name)
        return lambda value, where: None if value is None else inner(value, where)
    origin = getattr(annotation, "__origin__", None)
    if origin is list:
        return _list(checker(parameters[0], name), parameters[0])
    if origin is tuple:
        return _tuple([checker(parameter, name) for parameter in parameters])
    if annotation is int:
        return _integer(*(_SIGNED & {name} and _S64 or _U64))
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if hasattr(annotation, "__exit__"):
        return _resource(annotation)
    if hasattr(annotation, "__dataclass_fields__"):
        return _record(annotation)
    return _instance(annotation)


def wrong(where, expected, value):
    return TypeError(f"{where} must be {expected}, not {kind_of(value)}")


def kind_of(value):
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


def _text(value, where):
    if not isinstance(value, str):
        raise wrong(where, "a str", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{where} contains half of a surrogate pair at index {error.start}, which UTF-8 cannot express"
            ) from None
    return value


def _bytes(value, where):
    if type(value) is bytes:
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise wrong(where, "bytes", value)


def _float(value, where):
    if isinstance(value, (int, float)):
        return float(value)
    raise wrong(where, "a number", value)


def _boolean(value, where):
    if isinstance(value, bool):
        return value
    raise wrong(where, "a bool", value)


_PLAIN = {str: _text, bytes: _bytes, float: _float, bool: _boolean}


def _integer(low, high):
    def check(value, where):
        if not isinstance(value, int):
            if not hasattr(value, "__index__"):
                raise wrong(where, "an int", value)
            value = value.__index__()
        if not low <= value <= high:
            raise ValueError(f"{where} is {value}, and must be from {low} to {high}")
        return value

    return check


def _list(item, annotation):
    is_handle = hasattr(annotation, "__exit__")

    def check(values, where):
        if type(values) is not list:
            if isinstance(values, (str, bytes, dict)) or not hasattr(values, "__iter__"):
                raise wrong(where, "a list", values)
            values = list(values)
        if is_handle:
            for index, value in enumerate(values):
                item(value, where, index)
            return values
        return [item(value, f"{where}[{index}]") for index, value in enumerate(values)]

    return check


def _tuple(items):
    def check(value, where):
        if not isinstance(value, (tuple, list)) or len(value) != len(items):
            raise wrong(where, f"a tuple of {len(items)}", value)
        return tuple(item(one, f"{where}[{index}]") for index, (item, one) in enumerate(zip(items, value)))

    return check


def _resource(resource):
    name = resource.__name__.lower()

    def check(value, where, index=None):
        if type(value) is not resource:
            where = where if index is None else f"{where}[{index}]"
            if isinstance(value, resource):
                raise ValueError(f"{where} is a {name} that must not be used: {value._spent}")
            raise wrong(where, f"a {name}", value)
        return value

    return check


def _instance(cls):
    def check(value, where):
        if not isinstance(value, cls):
            raise wrong(where, f"of type {cls.__name__}", value)
        return value

    return check


def _record(cls):
    fields = {name: checker(annotation, name) for name, annotation in cls.__annotations__.items()}

    def check(value, where):
        if not isinstance(value, cls):
            raise wrong(where, f"a {cls.__name__}", value)
        for name, field in fields.items():
            setattr(value, name, field(getattr(value, name), f"{where}.{name}"))
        return value

    return check
