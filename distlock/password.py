"""Where a password comes from when it stands in no URL, and how it gets into one.

A password never stands in an argument, where `ps` shows it to everybody: it comes from `REDIS_URL`,
from a file, or from whoever sits at the terminal.
"""

from __future__ import annotations

import os
import stat
from urllib.parse import parse_qsl, quote, urlsplit

from .errors import UsageError
from .text import mask

LONGEST = 4096
"""Bytes that a password may have."""


def from_file(path: str) -> str:
    """The password in a file that holds nothing else: one line, with or without its end.

    Raises:
        UsageError: there is none, or others may read it.
    """
    try:
        with open(path, "rb") as file:
            mode, data = os.fstat(file.fileno()).st_mode, file.read(LONGEST + 1)
        text = data.removesuffix(b"\n").removesuffix(b"\r").decode()
    except OSError as error:
        raise _unfit(path, f"{error.strerror}: name a file that holds the password") from None
    except UnicodeDecodeError:
        raise _unfit(path, "it is no UTF-8: write the password in UTF-8") from None
    if stat.S_ISREG(mode) and mode & 0o077:
        raise _unfit(path, "it is open to others: run `chmod 600` on it")
    if not text:
        raise _unfit(path, "it is empty: write the password into it")
    if len(data) > LONGEST or not text.isprintable():
        raise _unfit(path, "it holds more than one line of text: leave the password alone in it")
    return text


def _unfit(path: str, why: str) -> UsageError:
    return UsageError(f"--password-file {path}: {why}")


def in_url(url: str, password: str | None) -> str:
    """The URL with the password in it; the same when there is none to add.

    Raises:
        UsageError: it has one already.
    """
    if password is None:
        return url
    parts = urlsplit(url)
    if parts.password or "password" in dict(parse_qsl(parts.query)):
        raise UsageError(
            f"{mask(url)!r} has a password, --password-file gives another: leave one out"
        )
    user, _, place = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}:{quote(password, safe='')}@{place}"
    return parts._replace(netloc=netloc).geturl()
