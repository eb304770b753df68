"""A process that gets one value, told what to do by its arguments; it prints a line for each event.

python -m tests.cache_process URL seconds-of-the-getter|value [option=number ...]
"""

from __future__ import annotations

import sys
import time

from distlock import Cache


def say(*words: object) -> None:
    """One line, at once."""
    print(*words, flush=True)


def main() -> None:
    """Do it."""
    url, work, *pairs = sys.argv[1:]
    options = {name: float(value) for name, _, value in (pair.partition("=") for pair in pairs)}

    def getter() -> str:
        say("computes", time.monotonic())
        time.sleep(float(work))
        return f"by {work}"

    cache = Cache(url, **options)  # type: ignore[arg-type]
    say("got", cache.get("k", getter, expire=60, execution_limit=60), time.monotonic())
    say("refused", cache.stats().refused)


if __name__ == "__main__":
    main()
