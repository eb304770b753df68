"""An `async def` handler that speaks HTTP: is each link of a list still good?

Each line of links.txt is a message. What may be over in a minute (no answer, 5xx) raises, so the
message is tried again after a while, and is an error in the end. What stays as it is (200, 404) is
a result. A handler's copy has one message at a time; start as many copies as may ask at once:

    distlock --name links --input links.txt --handle fetch:check --time-limit 20

The timeout ends a server that says nothing; nothing but the standard library is needed.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

from distlock import Message


class NotNow(Exception):
    """The server cannot answer now: try again later."""


async def status_of(url: str) -> int:
    """The status code of a HEAD request.

    Raises:
        OSError: nobody answers there.
        NotNow: what answers is no HTTP server, or says that it cannot.
        TimeoutError: it took longer than 10 s.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    async with asyncio.timeout(10):
        port = parts.port or (443 if secure else 80)
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure or None)
        try:
            head = f"HEAD {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode("ascii"))
            words = (await reader.readline()).split()
        finally:
            writer.close()
    if len(words) < 2 or not words[1].isdigit():
        raise NotNow(f"{url} answers {b' '.join(words)[:80]!r}")
    return int(words[1])


async def check(message: Message) -> dict[str, Any]:
    """Handle one link: its status and how long it took."""
    url, began = message.body.decode(), time.monotonic()
    status = await status_of(url)
    if status >= 500:
        raise NotNow(f"{url} answers {status}")
    return {"url": url, "status": status, "ms": round(1000 * (time.monotonic() - began))}
