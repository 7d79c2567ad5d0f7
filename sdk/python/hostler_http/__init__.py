"""Calls to the HTTP servers that the manifest allows under `[plugins.<name>.http]`.

    import hostler_http

    answer = hostler_http.fetch("https://features.internal:8080/users/7", headers={"accept": "application/json"})

This is a separate module, because importing it adds an import to the component. A call blocks the
current request; the guest leaves its worker while it waits.
"""

from componentize_py_types import Err
from hostler_plugin import _checks
from wit_world.imports import http
from wit_world.imports.http_types import HttpRequest, HttpResponse
from wit_world.imports.types import Error, ErrorKind

__all__ = ["HttpResponse", "fetch", "success"]

_checks.guard(http)


def fetch(url, method="GET", headers=(), body=b"", seconds=None):
    """Sends a request and returns a response with `status`, `headers` (a list of pairs, names in
    lower case) and `body` (bytes), with any status; redirects are not followed. `headers` is a dict
    or a list of pairs. The call fails after `seconds`, or earlier if the manifest's timeout is
    shorter. Raises the contract's error if there is no response."""
    pairs = list(headers.items() if isinstance(headers, dict) else headers)
    milliseconds = None if seconds is None else max(0, round(seconds * 1000))
    if isinstance(body, str):
        raise TypeError("hostler_http.fetch: body must be bytes, not a str: use body.encode()")
    return http.fetch(HttpRequest(method, url, pairs, bytes(body), milliseconds))


def success(answer):
    """Returns the response if its status is 2xx; otherwise raises an error that is not the caller's
    fault."""
    if 200 <= answer.status <= 299:
        return answer
    raise Err(Error(ErrorKind.FAILED, f"the server answered with status {answer.status}", None))
