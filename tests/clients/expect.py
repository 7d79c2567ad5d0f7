"""Shared by the client programs in this folder: arguments, models, and comparisons that report what
was wrong.

Each program in the subfolders covers one theme. Its arguments are the address of a host and the
protocol, `http` or `grpc`. It ends with an error if a check fails. `triton` is the client's module
of that protocol, for programs that are the same for both.
"""

import importlib
import sys

import numpy as np
from tritonclient.utils import InferenceServerException

ADDRESS, PROTOCOL = sys.argv[1:]
triton = importlib.import_module(f"tritonclient.{PROTOCOL}")

# Inputs for `simple`, whose outputs are their sum and difference.
LEFT = np.arange(16, dtype=np.int32).reshape(1, 16)
RIGHT = np.full((1, 16), 3, np.int32)


def equal(what, got, wanted):
    arrays = isinstance(got, np.ndarray) and isinstance(wanted, np.ndarray)
    if not (np.array_equal(got, wanted) if arrays else got == wanted):
        raise SystemExit(f"{what}: expected {wanted!r}, got {got!r}")


def sum_and_difference(result, names=("OUTPUT0", "OUTPUT1")):
    for name, wanted in (("OUTPUT0", LEFT + RIGHT), ("OUTPUT1", LEFT - RIGHT)):
        equal(name, result.as_numpy(name), wanted if name in names else None)


def refused(what, call, *phrases):
    """Checks that the call fails with a message that contains all of these phrases."""
    try:
        answer = call()
    except InferenceServerException as error:
        said(what, error, *phrases)
    else:
        raise SystemExit(f"{what}: expected an error, got {answer!r}")


def said(what, error, *phrases):
    message = error.message() or ""
    for phrase in phrases:
        if phrase not in message:
            raise SystemExit(f"{what}: {message!r} lacks {phrase!r}")
