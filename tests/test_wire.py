"""What connections hear, in whatever pieces a server's bytes come, and when they end.

The server here is a puppet: it says exactly what a test has it say, in the pieces that it wants.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import hiredis
import pytest
import redis
import redis.asyncio
from redis.exceptions import (
    ConnectionError,
    InvalidResponse,
    NoPermissionError,
    ResponseError,
    TimeoutError,
)

from distlock.io import Route, SyncIO
from distlock.io.ear import Ear
from distlock.io.link import Link
from distlock.io.mailbox import Mailbox
from distlock.io.route import AsyncRoute
from tests.conftest import ONE_KIND

SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
MESSAGE = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$7\r\nt hello\r\n"
REFUSED = b"-NOPERM No permissions to access a channel\r\n"
Said = dict[str, list[bytes]]


@contextmanager
def puppet(said: Said) -> Iterator[str]:
    """A server of one connection: pieces after some commands, else OK; an empty one hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        heard = hiredis.Reader()
        with connection, suppress(OSError):  # the client may reset it
            while data := connection.recv(65536):
                heard.feed(data)
                while (words := heard.gets()) is not False:
                    answer = b":7\r\n" if words[1:] == [b"ID"] else b"+OK\r\n"
                    for piece in said.get(words[0].decode(), [answer]):
                        if not piece:
                            return
                        connection.sendall(piece)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with closing(listener):
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}?protocol=2"
    thread.join(5)
    assert not thread.is_alive()


@contextmanager
def ear_at(url: str, seconds: float = 5.0) -> Iterator[Ear]:
    """An ear there."""
    with redis.Redis.from_url(url) as client, closing(Ear(Route(client), "c", seconds)) as ear:
        yield ear


def in_bytes(said: bytes) -> list[bytes]:
    """One byte after the other."""
    return [bytes([byte]) for byte in said]


PIECES = pytest.mark.parametrize(
    "pieces",
    [[SUBSCRIBED + MESSAGE], [SUBSCRIBED, MESSAGE], in_bytes(SUBSCRIBED + MESSAGE)],
    ids=["at-once", "two", "bytes"],
)


@PIECES
def test_9_a_message_that_comes_with_the_confirmation_is_heard_by_an_ear(
    pieces: list[bytes],
) -> None:
    with puppet({"SUBSCRIBE": pieces}) as url, ear_at(url) as ear:
        assert ear.hear(5.0) == b"t hello"
        assert ear.hear(0.01) is None


@PIECES
def test_9_a_message_that_comes_with_the_confirmation_is_heard_by_a_mailbox(
    pieces: list[bytes],
) -> None:
    async def body(client: redis.asyncio.Redis) -> None:
        mailbox = Mailbox(await AsyncRoute(client).connection(protocol=2, socket_timeout=None))
        mailbox.expect("t")
        with closing(mailbox):
            await mailbox.open("c")
            assert await mailbox.hear("t", 5.0) == b"hello"
            assert await mailbox.hear("t", 0.01) is None

    with puppet({"SUBSCRIBE": pieces}) as url:
        run(url, body)


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [([REFUSED], NoPermissionError), ([SUBSCRIBED[:9], b""], ConnectionError)],
    ids=["refused", "hung-up"],
)
def test_who_cannot_subscribe_is_told_why(pieces: list[bytes], kind: type[Exception]) -> None:
    with puppet({"SUBSCRIBE": pieces}) as url, pytest.raises(kind), ear_at(url):
        pass

    async def body(client: redis.asyncio.Redis) -> None:
        mailbox = Mailbox(await AsyncRoute(client).connection(protocol=2, socket_timeout=None))
        with pytest.raises(kind):
            await mailbox.open("c")

    with puppet({"SUBSCRIBE": pieces}) as url:
        run(url, body)


def test_an_ear_that_hears_no_confirmation_says_so_in_time() -> None:
    with puppet({"SUBSCRIBE": []}) as url, pytest.raises(TimeoutError), ear_at(url, 0.05):
        pass


def test_who_waits_for_a_message_learns_that_the_connection_is_gone() -> None:
    with puppet({"SUBSCRIBE": [SUBSCRIBED, MESSAGE, b""]}) as url, ear_at(url) as ear:
        assert ear.hear(5.0) == b"t hello"
        with pytest.raises(ConnectionError):
            ear.hear(5.0)

    async def body(client: redis.asyncio.Redis) -> None:
        mailbox = Mailbox(await AsyncRoute(client).connection(protocol=2, socket_timeout=None))
        mailbox.expect("t")
        await mailbox.open("c")
        assert await mailbox.hear("t", 5.0) == b"hello"
        assert await mailbox.hear("t", 5.0) == b""
        assert mailbox.broken

    with puppet({"SUBSCRIBE": [SUBSCRIBED, MESSAGE, b""]}) as url:
        run(url, body)


def run(url: str, body: Callable[[redis.asyncio.Redis], Any]) -> None:
    """Run something on a client of its own."""

    async def whole() -> None:
        async with redis.asyncio.Redis.from_url(url) as client:
            await body(client)

    asyncio.run(whole())


async def link_of(client: redis.asyncio.Redis) -> Link:
    """A link that is open."""
    return await Link.open(await AsyncRoute(client).connection(socket_timeout=None))


def test_answers_go_to_those_who_asked_in_whatever_pieces_they_come() -> None:
    said = {
        "A": in_bytes(b"*2\r\n$2\r\n\r\n\r\n$-1\r\n"),
        "B": in_bytes(b"-ERR no\r\n"),
        "C": [b"+O", b"K\r\n"],
    }

    async def body(client: redis.asyncio.Redis) -> None:
        with closing(await link_of(client)) as link:
            found = await asyncio.gather(
                *[link.ask((word,), 5.0) for word in "ABCA"], return_exceptions=True
            )
            assert found[0] == found[3] == [b"\r\n", None]
            assert isinstance(found[1], ResponseError)
            assert found[2] == b"OK"
            assert not link.broken

    with puppet(said) as url:
        run(url, body)


def test_a_request_that_cannot_be_sent_leaves_the_answers_with_those_who_asked() -> None:
    async def body(client: redis.asyncio.Redis) -> None:
        with closing(await link_of(client)) as link:
            asked = asyncio.ensure_future(link.ask(("A",), 5.0))
            await asyncio.sleep(0)
            with pytest.raises(TypeError):
                await link.ask((object(),), 5.0)  # type: ignore[arg-type]
            assert await link.ask(("B",), 5.0) == b"b"
            assert await asked == b"a"

    with puppet({"A": [b"+a\r\n"], "B": [b"+b\r\n"]}) as url:
        run(url, body)


@pytest.mark.parametrize(
    ("piece", "kind"), [(b"hello\r\n", InvalidResponse), (b"", ConnectionError)]
)
def test_when_the_bytes_make_no_sense_or_end_all_who_wait_are_told_and_nothing_is_logged(
    piece: bytes, kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    async def body(client: redis.asyncio.Redis) -> None:
        link = await link_of(client)
        asked = [link.ask((word,), 5.0) for word in "ABA"]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert found[0] == b"OK"
        assert isinstance(found[1], kind)
        assert isinstance(found[2], kind)
        assert link.broken
        with pytest.raises(ConnectionError):
            await link.ask(("A",), 5.0)

    with caplog.at_level(logging.DEBUG, "asyncio"), puppet({"B": [piece, b"+late\r\n"]}) as url:
        run(url, body)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_what_comes_after_the_end_is_nobodys() -> None:
    async def body(client: redis.asyncio.Redis) -> None:
        link = await link_of(client)
        asked = asyncio.ensure_future(link.ask(("A",), 5.0))
        await asyncio.sleep(0)
        link.close()
        link._wire.data_received(b"+OK\r\n")
        with pytest.raises(ConnectionError, match="was closed"):
            await asked

    with puppet({}) as url:
        run(url, body)


@ONE_KIND
def test_what_a_server_pushes_is_no_answer(url: str) -> None:
    async def body(client: redis.asyncio.Redis) -> None:
        with closing(await link_of(client)) as link:
            assert await link.ask(("CLIENT", "TRACKING", "ON", "BCAST"), 5.0) == b"OK"
            for value in range(20):
                await client.set("key", value)
                assert await link.ask(("GET", "key"), 5.0) == b"%d" % value

    run(url + "?protocol=3", body)


def test_who_is_let_go_leaves_no_connection_open(client: redis.Redis) -> None:
    io, ear = SyncIO(client), Ear(Route(client), "c", 5)
    io._execute("PING")
    connections = [io._connection, ear._connection]
    assert all(connection.is_connected for connection in connections)
    del io, ear
    assert not any(connection.is_connected for connection in connections)
