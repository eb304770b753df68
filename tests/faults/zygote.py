"""A process that has imported everything and started no thread, and forks for each order.

    PYTHONPATH=tests/faults/injector DISTLOCK_FAULT_SERVER=... python -m tests.faults.zygote

An order is a line of JSON: the program (see programs.py) and its arguments, the fault, and the
file that takes what it prints. The answer, when the child has ended, is its exit code (negative:
the signal that ended it) and the number of requests it sent, None if it was killed.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib.metadata
import json
import os
import signal
import sys
import traceback
from typing import Any

# what the programs import when they run, so that a child finds it there
import redis.asyncio
import sitecustomize

import distlock.cli
import distlock.pipeline
import distlock.view
import distlock.work
import distlock.worker.process
from distlock import scripts
from tests import work_for_tests
from tests.faults import programs

LONGEST = 30
"""Seconds after which a child that hangs is ended by SIGALRM."""
IMPORTED = (asyncio, redis.asyncio, distlock, work_for_tests)


def child(order: dict[str, Any], report: int) -> None:
    """Be the program, from here to the end of the process."""
    signal.alarm(LONGEST)
    os.environ.update(order["environment"])
    out = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    errors = os.open(order["out"] + ".err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(errors, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    assert sitecustomize.injector
    sitecustomize.injector.choose = sitecustomize.parsed(order["fault"])
    code: object = 0
    try:
        programs.PROGRAMS[order["program"]](*order["arguments"])
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(report, str(sitecustomize.injector.sent).encode())
    os._exit(code if isinstance(code, int) else 1)


def main() -> None:
    """Take orders until there are no more."""
    for name in scripts.names():
        scripts.script(name)
    # redis-py asks for its own version, a file, with each client: a quarter of a short run
    importlib.metadata.version = functools.cache(importlib.metadata.version)
    gc.collect()
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        order = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(order, write)
        os.close(write)
        _, status = os.waitpid(pid, 0)
        sent = os.read(read, 20)
        os.close(read)
        answer = (os.waitstatus_to_exitcode(status), int(sent) if sent else None)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
