from dataclasses import dataclass
from typing import List, Optional, Tuple


@dataclass
class HttpRequest:
    method: str
    url: str
    headers: List[Tuple[str, str]]
    body: bytes
    timeout_ms: Optional[int]


@dataclass
class HttpResponse:
    status: int
    headers: List[Tuple[str, str]]
    body: bytes
