"""What runs beside the caller: one step again and again, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from redis.exceptions import RedisError

from ..errors import ServerUnreachable


class Background:
    """A thread that runs one step again and again, until the `with` block around it ends.

    The thread is a daemon and never holds up the exit of the interpreter.

    Args:
        step: what to do; an error of the server in it is left to the next step.
        seconds: pause between two steps.
    """

    def __init__(self, step: Callable[[], None], seconds: float) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, args=(step, seconds), daemon=True)
        self._thread.start()

    def _loop(self, step: Callable[[], None], seconds: float) -> None:
        while not self._end.wait(seconds):
            try:
                step()
            except (RedisError, ServerUnreachable):
                continue  # the thread in front meets the same server and reports it

    def __enter__(self) -> None:
        """It runs already."""

    def __exit__(self, *error: object) -> None:
        """End it; returns when the step under way is over, at most 2 s later."""
        self._end.set()
        self._thread.join(2)
