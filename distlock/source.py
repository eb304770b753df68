"""Where messages come from: random text, the lines of a file, or the user's own function.

Rules:

- A source is a function of the id: `bodies(start)` begins with the body of message `start`, so
  whoever takes over goes on at sequence + 1 and gets the same messages.
- The job's record keeps the source's `description`; a copy with another source cannot join.
- Bytes pass unchanged. A file that changes while it is read is an error: the ids would no longer
  mean its lines.
"""

from __future__ import annotations

import importlib
import itertools
import os
import random
import stat
import string
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from inspect import isawaitable
from typing import Any, BinaryIO, Protocol

from .errors import GeneratorFailed, UsageError
from .io import Caller, Interrupted

END = 64 * 1024
"""Bytes at each end of a file that its fingerprint covers."""
READ = 256 * 1024
"""Bytes of a file that are read at once."""


class Source(Protocol):
    """What the generator reads from."""

    description: str

    def count(self) -> int | None:
        """How many messages there are; None when that shows only at the end."""

    def bodies(self, start: int) -> Iterator[bytes]:
        """The bodies of the messages `start`, `start` + 1, …"""


class RandomSource:
    """Random text of 80 to 100 characters, the same for the same seed and id."""

    description = "random"

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def count(self) -> None:
        """It never ends."""
        return

    def bodies(self, start: int) -> Iterator[bytes]:
        """Slices of one random text, at places that the id and the seed decide."""
        letters = string.ascii_letters + string.digits + "     "
        text = "".join(random.Random(self._seed).choices(letters, k=1 << 16)).encode()
        room, seed = len(text) - 100, self._seed
        for id in itertools.count(start):
            mixed = (id + seed) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF  # Fibonacci hashing
            at = (mixed >> 32) % room
            yield text[at : at + 80 + (mixed >> 20) % 21]


class FileSource:
    """Each line of a file, without its newline.

    Args:
        path: a regular file.
        max_body: bytes that a line may have.

    Raises:
        UsageError: it is missing, unreadable, a folder, no regular file, or empty.
    """

    def __init__(self, path: str, max_body: int) -> None:
        self._path = path
        self._place = path and os.path.abspath(path)  # a handler may change the folder
        self._max_body = max_body
        try:
            with self._open() as file:
                self._state = self._look(file)
                self.description = _fingerprint(file)
        except OSError as error:
            raise UsageError(f"--input {path}: {error.strerror}: name a file to read") from error

    def _open(self) -> BinaryIO:
        if not stat.S_ISREG(os.stat(self._place).st_mode):
            raise UsageError(
                f"--input {self._path}: not a regular file, so a takeover could not resume it: "
                "write it to a file first"
            )
        return open(self._place, "rb", buffering=READ)

    def _look(self, file: BinaryIO) -> tuple[int, int, int]:
        now = os.fstat(file.fileno())
        if now.st_size == 0:
            raise UsageError(f"--input {self._path}: the file is empty: there is nothing to do")
        return now.st_ino, now.st_size, now.st_mtime_ns

    def _check(self, file: BinaryIO) -> None:
        now = os.fstat(file.fileno())
        if (now.st_ino, now.st_size, now.st_mtime_ns) != self._state:
            raise GeneratorFailed(
                f"--input {self._path} changed while it was read: ids would no longer mean its "
                "lines; put the old file back, or --reset to begin anew"
            )

    def count(self) -> int:
        """The number of lines; reads the file once.

        Raises:
            UsageError: a line is longer than `max_body`.
            GeneratorFailed: the file changed, or cannot be read any more.
        """
        with self._again() as file:
            number = 0
            for line in self._lines(file):
                number += 1
                del line  # here, too
            self._check(file)
            return number

    @contextmanager
    def _again(self) -> Iterator[BinaryIO]:
        """The file, opened once more, if it is still the same."""
        try:
            with self._open() as file:
                self._check(file)
                yield file
        except OSError as error:
            raise GeneratorFailed(
                f"--input {self._path}: {error.strerror}: put the file back and start again"
            ) from error

    def _lines(self, file: BinaryIO) -> Iterator[bytes]:
        number, most = 0, self._max_body + 2  # one more than fits, and the newline
        while (line := _read_line(file, most)) is not None:
            number += 1
            if len(line) > self._max_body:
                raise UsageError(
                    f"--input {self._path}: line {number} is longer than --max-body "
                    f"({self._max_body} bytes): raise it or split the line"
                )
            yield line
            del line  # else a long one would be held while the next one is read

    def bodies(self, start: int) -> Iterator[bytes]:
        """The lines from number `start` on; raises like `count`."""
        with self._again() as file:
            lines = itertools.islice(self._lines(file), start - 1, None)
            more = True
            while more:
                page = _page(lines)
                self._check(file)  # at the end, too: a file cut short ends early
                more = bool(page)
                page.reverse()
                while page:
                    yield page.pop()


def _read_line(file: BinaryIO, most: int) -> bytes | None:
    """The next line without its newline, of some bytes at most; None at the end.

    A long line is measured first and then read into its place: `readline` would hold it twice.
    """
    line = file.readline(min(READ, most))
    if len(line) < READ or line.endswith(b"\n"):
        return line.removesuffix(b"\n") if line else None
    start = file.tell() - len(line)
    while line and not line.endswith(b"\n") and (left := start + most - file.tell()) > 0:
        line = file.readline(min(READ, left))
    end = file.tell()
    file.seek(start)
    body = file.read(end - start - line.endswith(b"\n"))
    file.seek(end)
    return body


def _page(lines: Iterator[bytes]) -> list[bytes]:
    """The next lines: 200, or as many as reach 64 kB."""
    page: list[bytes] = []
    size = 0
    for line in lines:
        page.append(line)
        size += len(line)
        if len(page) >= 200 or size >= END:
            break
    return page


def _fingerprint(file: BinaryIO) -> str:
    """Size and a hash of both ends: enough to tell another file, quick for a huge one."""
    size = os.fstat(file.fileno()).st_size
    digest = blake2b(file.read(END), digest_size=8)
    file.seek(max(size - END, 0))
    digest.update(file.read(END))
    return f"file of {size} bytes, {digest.hexdigest()}"


class FunctionSource:
    """The user's `generate(start)`: an iterator of bodies, bytes or str, from id `start` on.

    Args:
        spec: `module:function`.
        max_body: bytes that a body may have.

    Raises:
        UsageError: there is no such function.
    """

    def __init__(self, spec: str, max_body: int) -> None:
        self.description = f"function {spec}"
        self._function = load(spec, "--generate")
        self._max_body = max_body

    def count(self) -> None:
        """It ends when it ends."""
        return

    def bodies(self, start: int) -> Iterator[bytes]:
        """What the function gives, as bytes.

        Raises:
            GeneratorFailed: it raised, or gave something that is no message.
        """
        id = start
        try:
            for body in _driven(self._function(start)):
                yield self._checked(id, body)
                id += 1
        except (GeneratorFailed, GeneratorExit, KeyboardInterrupt, Interrupted):
            raise
        except BaseException as error:  # SystemExit and CancelledError, too
            raise GeneratorFailed(
                f"{self.description} raised {type(error).__name__} at message {id}: {error}"
            ) from error

    def _checked(self, id: int, body: Any) -> bytes:
        data = body.encode() if isinstance(body, str) else body
        if not isinstance(data, bytes):
            kind = type(body).__name__
            raise GeneratorFailed(
                f"message {id} is a {kind}: {self.description} must give bytes or str"
            )
        if len(data) > self._max_body:
            raise GeneratorFailed(
                f"message {id} has {len(data)} bytes, --max-body is {self._max_body}: raise it, or "
                "give less"
            )
        return data


def _driven(given: Any) -> Iterator[Any]:
    """An iterator over an iterable, an async iterable, or what a coroutine returns."""
    if not hasattr(given, "__aiter__") and not isawaitable(given):
        yield from given
        return
    caller = Caller(_following)
    try:
        source = caller.call(given, False)
        if not hasattr(source, "__aiter__"):
            yield from source
            return
        source = source.__aiter__()
        while True:
            yield caller.call(source, True)
    except StopAsyncIteration:
        return
    finally:
        caller.close()


async def _following(source: Any, one: bool) -> Any:
    if one:
        return await source.__anext__()
    return await source if isawaitable(source) else source


def load(spec: str, option: str) -> Callable[..., Any]:
    """The function that `module:function` names; the current folder is searched, too.

    Args:
        spec: the module and the function in it.
        option: which option said so, for the message.

    Raises:
        UsageError: no module, an error in it, or no such function.
    """
    module_name, _, name = spec.partition(":")
    if not name or not module_name or module_name.startswith(".") or "/" in module_name:
        raise UsageError(f"{option} {spec}: write it as module:function")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name + ".").startswith(error.name + "."):
            raise UsageError(
                f"{option} {spec}: there is no module {error.name!r} here or on the Python path"
            ) from error
        raise UsageError(
            f"{option} {spec}: {module_name} needs {error.name!r}: install it"
        ) from error
    except (Exception, SystemExit) as error:  # a script without a guard ends its process
        said = f"{type(error).__name__}: {error}"
        raise UsageError(f"{option} {spec}: {module_name} fails on import: {said}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"{option} {spec}: module {module_name!r} has no function {name!r}")
    loaded: Callable[..., Any] = function
    return loaded
