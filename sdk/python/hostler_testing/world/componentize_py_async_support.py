"""The event loop of streaming models, with the time of the stand-in."""

from hostler_testing._loop import Loop

_loop = Loop()


def spawn(coroutine):
    _loop.create_task(coroutine)
