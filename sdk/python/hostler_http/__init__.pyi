"""Types for editors and type checkers. The documentation is in docs/reference/sdk-python.md."""

from collections.abc import Iterable, Mapping

class HttpResponse:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...

def fetch(
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    seconds: float | None = None,
) -> HttpResponse: ...
def success(answer: HttpResponse) -> HttpResponse: ...
