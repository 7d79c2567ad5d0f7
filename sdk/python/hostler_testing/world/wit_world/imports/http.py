from hostler_testing._environment import current

from .http_types import HttpRequest, HttpResponse


def fetch(request: HttpRequest) -> HttpResponse:
    """In a streaming model, this is asynchronous."""
    return current().fetch(request)
