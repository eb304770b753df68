"""Text made fit to be shown: nothing that steers a terminal, no password."""

from __future__ import annotations

import re


def harmless(text: str) -> str:
    """The text with everything unprintable as an escape: `\\x1b`, `\\n`, `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )


def mask(url: str) -> str:
    """The URL without its password, whatever characters that has."""
    url = re.sub(r"(password=)[^&]*", r"\1***", url)
    return re.sub(r"(://[^:@]*):.*@", r"\1:***@", url, flags=re.DOTALL)
