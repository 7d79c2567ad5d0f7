"""An event loop like the one in a component: it has no timers of its own and no threads. Time is a
number that advances when all tasks wait, so that a test never waits."""

import asyncio
import heapq
from collections import deque

from ._faults import Trap


class Loop(asyncio.AbstractEventLoop):
    def __init__(self):
        self._ready, self._timers, self._count, self._is_running = deque(), [], 0, False
        self._trap = None

    def call_soon(self, callback, *arguments, context=None):
        handle = asyncio.Handle(callback, arguments, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def create_future(self):
        return asyncio.Future(loop=self)

    def create_task(self, coroutine, **options):
        task = asyncio.Task(coroutine, loop=self, **options)
        task.add_done_callback(self._find_trap)
        return task

    def _find_trap(self, task):
        """A trap in any task ends the instance, also in one that nobody awaits."""
        if not task.cancelled() and isinstance(task._exception, Trap):
            self._trap = self._trap or task._exception

    def get_debug(self):
        return False

    def is_running(self):
        return self._is_running

    def is_closed(self):
        return False

    def call_exception_handler(self, context):
        pass

    def default_exception_handler(self, context):
        pass

    # What the stand-in uses.

    def wake_at(self, when, future):
        """Completes a future at this time."""
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, future))

    def run(self, coroutine, clock):
        """Runs a coroutine to its end and returns its value. `clock.now` is the time."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        asyncio._set_running_loop(self)
        self._is_running, self._trap = True, None
        try:
            task = self.create_task(coroutine)
            while True:
                self.drain()
                if self._trap is not None:
                    raise self._trap
                if task.done():
                    return task.result()
                if not self._timers:
                    task.cancel()
                    self.drain()
                    raise Trap(
                        "execute waits for something that never happens. The host answers calls of the same request "
                        "only: asyncio primitives do not wake a task of another request"
                    )
                when, _, future = heapq.heappop(self._timers)
                if not future.done():
                    clock.now = max(clock.now, when)
                    future.set_result(None)
        finally:
            self._is_running = False
            asyncio._set_running_loop(before)

    def drain(self):
        """Runs everything that does not wait."""
        while self._ready:
            handle = self._ready.popleft()
            if not handle._cancelled:
                handle._run()
