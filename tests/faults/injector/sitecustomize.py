"""Breaks one request of any Python program that has this folder on its PYTHONPATH.

The program is not changed: what its connections do is changed below it, in `socket`. Requests are
counted from 1, in the order in which they are sent to the server's unix socket, whoever sends them.

    DISTLOCK_FAULT_SERVER=/path/of/the/socket   counts what is sent there
    DISTLOCK_FAULT=17:half                      breaks the 17th request

before: SIGKILL before it is sent. half: SIGKILL after half of its bytes. after: SIGKILL when the
answer is there, and was not read. lost: the answer is thrown away, the connection is broken, and
the program goes on. pause: SIGSTOP before it is sent. late: SIGSTOP when the answer is there, and
was not read.

Only the standard library is used, as Python imports this before anything else.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

FAULTS = ("before", "half", "after", "lost")
PAUSES = ("pause", "late")
ANSWER = 5000
"""Milliseconds for which an answer is waited for that is not to be read."""


class Injector:
    """Counts the requests to one server, and breaks some.

    Args:
        server: the path of its unix socket.
        choose: told the number and the bytes of each request; returns a fault, or "".

    Attributes:
        sent: requests that were sent, or broken, so far.
    """

    def __init__(self, server: str, choose: Callable[[int, bytes], str]) -> None:
        self.choose = choose
        self.sent = 0
        self._server = server
        self._counting = threading.Lock()
        self._deaf: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def install(self) -> Callable[[], None]:
        """Stand between the sockets of this process and the system; returns what undoes that."""
        kind: Any = socket.socket
        names = ("send", "sendall", "recv", "recv_into")
        real = {name: getattr(kind, name) for name in names}

        def send(one: socket.socket, data: bytes, flags: int = 0, all: bool = False) -> Any:
            if not self._is_ours(one):
                return real["sendall" if all else "send"](one, data, flags)
            fault = self._count(data)
            if fault == "before":
                _die()
            if fault == "pause":
                os.kill(os.getpid(), signal.SIGSTOP)
            whole = bytes(data)
            real["sendall"](one, whole[: len(whole) // 2] if fault == "half" else whole, flags)
            if fault == "half":
                _die()
            if fault and fault != "pause":
                _wait_for_answer(one)
            if fault == "late":
                os.kill(os.getpid(), signal.SIGSTOP)
            if fault == "after":
                _die()
            if fault == "lost":
                self._deaf.add(one)
                one.shutdown(socket.SHUT_RDWR)
            return None if all else len(whole)

        def recv(one: socket.socket, *args: Any) -> bytes:
            return b"" if one in self._deaf else real["recv"](one, *args)

        def recv_into(one: socket.socket, *args: Any) -> int:
            return 0 if one in self._deaf else real["recv_into"](one, *args)

        kind.send, kind.sendall = send, _sendall(send)
        kind.recv, kind.recv_into = recv, recv_into

        def undo() -> None:
            for name in names:
                delattr(kind, name)  # those of the system's class show again

        return undo

    def _is_ours(self, one: socket.socket) -> bool:
        try:
            return one.family == socket.AF_UNIX and one.getpeername() == self._server
        except OSError:
            return False

    def _count(self, data: bytes) -> str:
        with self._counting:
            self.sent += 1
            return self.choose(self.sent, data)


def _sendall(send: Callable[..., Any]) -> Callable[..., Any]:
    def sendall(one: socket.socket, data: bytes, flags: int = 0) -> None:
        send(one, data, flags, all=True)

    return sendall


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_for_answer(one: socket.socket) -> None:
    poll = select.poll()
    poll.register(one, select.POLLIN)
    if not poll.poll(ANSWER):
        raise RuntimeError("the server gave no answer to the request that was to be broken")


def at(point: int, fault: str, number: int, data: bytes) -> str:
    """The fault, if it is this request's."""
    return fault if number == point else ""


def nothing(number: int, data: bytes) -> str:
    """No request is broken."""
    return ""


def parsed(text: str) -> Callable[[int, bytes], str]:
    """What to break, from a text such as `17:half`; nothing, from an empty one."""
    if not text:
        return nothing
    point, _, fault = text.partition(":")
    if fault not in FAULTS + PAUSES:
        every = ", ".join(FAULTS + PAUSES)
        raise ValueError(f"DISTLOCK_FAULT={text!r}: the fault is one of {every}")
    return partial(at, int(point), fault)


injector: Injector | None = None
if server := os.environ.get("DISTLOCK_FAULT_SERVER"):
    injector = Injector(server, parsed(os.environ.get("DISTLOCK_FAULT", "")))
    injector.install()
