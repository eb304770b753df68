"""What the doctor says: one line about one thing."""

from __future__ import annotations

from typing import NamedTuple

OK, NOTE, BAD = "ok", "note", "bad"


class Finding(NamedTuple):
    """One line.

    Attributes:
        state: ok, note or bad.
        subject: what it is about.
        text: what was found.
        remedy: what to do about it, "" when there is nothing to do.
    """

    state: str
    subject: str
    text: str
    remedy: str = ""

    def line(self) -> str:
        """It as a person reads it."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.state:4}  {self.subject:11}  {self.text}{remedy}"
