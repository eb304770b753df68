"""What the demos stand on: a fresh folder, processes of this program, and an orderly end.

Rules:

- The folder of a demo is deleted at its end. SIGTERM and SIGHUP end a demo as Ctrl-C does, and
  nothing disturbs what it does last: to end what it has started.
- The processes lead sessions of their own: a Ctrl-C in the terminal reaches the demo alone. They
  see no server of the user's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """A folder for the servers and logs of a demo, until the block ends."""
    for number in ENDING[1:]:
        signal.signal(number, signal.default_int_handler)
    # a signal that comes as the folder is made counts once it is known which one is to go
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    folder = Path(tempfile.mkdtemp(prefix="distlock-demo-"))
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that end a demo do nothing while the block runs."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start(module: str, words: Sequence[str], folder: Path, **streams: Any) -> subprocess.Popen[Any]:
    """Start a module of this package as a process.

    Args:
        module: its name.
        words: its arguments.
        folder: where its embedded server is, if it looks for one.
        streams: stdin, stdout and stderr, as for Popen.
    """
    kept = {name: os.environ[name] for name in os.environ if not name.startswith("DISTLOCK_")}
    environment = kept | {"DISTLOCK_HOME": str(folder)}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    environment.pop("REDIS_URL", None)
    command = [sys.executable, "-m", module, *words]
    return subprocess.Popen(command, env=environment, start_new_session=True, **streams)


def end(process: subprocess.Popen[Any]) -> None:
    """End a process, if it still runs."""
    if process.poll() is None:
        process.kill()
    process.wait()
