"""A TCP proxy before a server: cuts connections, holds answers back, or loses them."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Proxy:
    """Passes bytes between its port and a server's unix socket, in a thread.

    Attributes:
        url: of the proxy.
        holding: answers are held back until it is false again; requests go through.
        deaf: nothing at all goes through, nobody is told.
        sparing: the next so many answers go through before any is lost.
        losing: so many answers are lost, each with its connection.
    """

    def __init__(self, url: str) -> None:
        self._path = urlsplit(url).path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.holding = self.deaf = False
        self.sparing = self.losing = 0
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._ended = False
        self._mutex = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Close every connection."""
        with self._mutex:
            for one in list(self._pairs):
                self._close(one)

    def close(self) -> None:
        """End it."""
        self._ended = True
        self._thread.join()
        self.cut()
        self._listener.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(0.01):
                with self._mutex:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket):
                        self._pass(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self._path)
        except OSError:
            client.close()
            server.close()
            return
        self._clients.add(client)
        for one, other in ((client, server), (server, client)):
            self._pairs[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass(self, one: socket.socket) -> None:
        if one not in self._pairs:
            return
        answer = one not in self._clients
        if self.deaf or (answer and self.holding):
            return
        try:
            data = one.recv(65536)
            if answer and data and self.sparing:
                self.sparing -= 1
            elif answer and data and self.losing:
                self.losing -= 1
                data = b""
            if not data:
                self._close(one)
            else:
                self._pairs[one].sendall(data)
        except OSError:
            self._close(one)

    def _close(self, one: socket.socket) -> None:
        if other := self._pairs.pop(one, None):
            self._pairs.pop(other, None)
            for end in (one, other):
                self._clients.discard(end)
                with suppress(KeyError, ValueError):
                    self._selector.unregister(end)
                end.close()


@contextmanager
def proxy(url: str) -> Iterator[Proxy]:
    """A proxy before the server at a unix socket."""
    made = Proxy(url)
    try:
        yield made
    finally:
        made.close()
