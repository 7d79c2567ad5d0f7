"""Asking HTTP servers: those that the manifest allows under `[plugins.<name>.http]`.

    import hostler_http

    answer = hostler_http.fetch("https://features.internal:8080/users/7", headers={"accept": "application/json"})

A module of its own, because importing it adds an import to the component. The call blocks, and its worker with it.
"""

from componentize_py_types import Err
from wit_world.imports import http
from wit_world.imports.http_types import HttpRequest, HttpResponse
from wit_world.imports.types import Error, ErrorKind

__all__ = ["HttpResponse", "fetch", "success"]


def fetch(url, method="GET", headers=(), body=b"", seconds=None):
    """Asks a server: an answer with `status`, `headers` (a list of pairs, names in lower case) and `body` (bytes),
    whatever the status; redirects are not followed. `headers` is a dict or a list of pairs. Gives up after so many
    seconds, if the manifest does not before. Raises the contract's error where there is no answer."""
    pairs = list(headers.items() if isinstance(headers, dict) else headers)
    milliseconds = None if seconds is None else max(0, round(seconds * 1000))
    return http.fetch(HttpRequest(method, url, pairs, bytes(body), milliseconds))


def success(answer):
    """The answer if its status is 2xx; else an error that is not the caller's fault is raised."""
    if 200 <= answer.status <= 299:
        return answer
    raise Err(Error(ErrorKind.FAILED, f"the server answered with status {answer.status}", None))
