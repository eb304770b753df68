"""What a person sees: events, the live view, tables; and the same for machines.

Rules:

- stdout carries results, stderr the rest. A pipe gets plain lines, or JSON with `--json`; a
  terminal gets a live view with at most 4 redraws a second.
- Whatever comes from the server or from a message is printed harmless: no markup of rich's, no
  control characters, no bidirectional overrides; they are shown as escapes.
- No command of the server's is known here.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from .text import harmless

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .lease import Holder
    from .live import Steady
    from .pipeline import ErrorRecord, Status, Verdict


def out(line: str) -> None:
    """One line of the result, to stdout."""
    print(harmless(line), flush=True)


def result(numbers: Mapping[str, Any], line: str, as_json: bool) -> None:
    """The result of a command: a line for a person, or an object for a machine."""
    print(json.dumps(numbers) if as_json else harmless(line), flush=True)


class View:
    """Events as plain lines on stderr, or as JSON with `as_json`.

    Args:
        as_json: one JSON object a line.
        copy: the name that each event carries.
        log: "text" or "json": the events are a log of this format, whatever `as_json` says, and
            there is no live view; None: they are no log.
    """

    def __init__(self, as_json: bool, copy: str = "", log: str | None = None) -> None:
        self._as_json = as_json if log is None else log == "json"
        self._log = log
        self.copy = copy
        self._live: Steady | None = None

    def say(self, kind: str, text: str, /, **numbers: Any) -> None:
        """Print one event; see worker.Say."""
        if self._as_json:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            event = {"time": now, "copy": self.copy, "event": kind, "text": text} | numbers
            print(json.dumps(event), file=sys.stderr, flush=True)
            return
        line = f"{time.strftime('%H:%M:%S')} {harmless(text)}"
        if self._live:
            self._live.above(line)
        else:
            print(line, file=sys.stderr, flush=True)

    @contextmanager
    def picture(self, make: Callable[[], Drawing]) -> Iterator[None]:
        """Show a drawing while the block runs, if stderr is a terminal; events go above it."""
        if self._log or self._as_json or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console

        from .live import Steady

        console = Console(stderr=True)
        with Steady(console, make().draw, stdout=sys.stdout.isatty()) as self._live:
            try:
                yield
            finally:
                self._live = None


class Drawing(Protocol):
    """Something that a live view draws again and again."""

    def draw(self) -> RenderableType:
        """The drawing as it is now."""


# --- errors ----------------------------------------------------------------------------------


def error_object(error: ErrorRecord) -> dict[str, Any]:
    """An error for a machine; a body that is not UTF-8 comes as base64, too."""
    try:
        body = {"body": error.body.decode()}
    except UnicodeDecodeError:
        text = error.body.decode(errors="backslashreplace")
        body = {"body": text, "body_base64": base64.b64encode(error.body).decode()}
    return error._asdict() | {"time": _when(error.time)} | body


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


class ErrorPrinter:
    """Prints errors page by page to stdout: a table on a terminal, JSON Lines otherwise.

    Args:
        as_json: JSON Lines on a terminal, too.
        whole: what does not fit into the table follows below each line: what was printed is about
            to be removed.
    """

    def __init__(self, as_json: bool, whole: bool = False) -> None:
        self._as_json = as_json or not sys.stdout.isatty()
        self._whole = whole
        self._first = True

    def page(self, errors: Sequence[ErrorRecord]) -> None:
        """Print one page; when it returns, all of it is written out."""
        if self._as_json:
            for error in errors:
                print(json.dumps(error_object(error)))
        elif self._whole:
            for error in errors:
                self._table([error])
                self._rest(error)
        elif errors:
            self._table(errors)
        sys.stdout.flush()

    def _rest(self, error: ErrorRecord) -> None:
        body = error.body.decode(errors="backslashreplace")
        said = error.traceback or f"{error.exception}: {error.message}"
        lines = [f"handler: {error.handler}", f"body: {body}", *said.splitlines()]
        print("\n".join(f"    {harmless(line)}" for line in lines))  # one write

    def _table(self, errors: Sequence[ErrorRecord]) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(expand=True, box=None, show_header=self._first, pad_edge=False)
        table.add_column("id", width=9)
        table.add_column("failed (UTC)", width=19)
        table.add_column("tries", width=5)
        for name in ("exception", "message", "body"):
            table.add_column(name, ratio=1, overflow="ellipsis", no_wrap=True)
        for error in errors:
            body = error.body[:200].decode(errors="backslashreplace")
            texts = (error.exception, error.message[:200], body)
            row = [str(error.id), _when(error.time)[:19], str(error.attempt)]
            table.add_row(*row, *(Text(harmless(text)) for text in texts))
        Console().print(table)
        self._first = False


# --- status and verify -----------------------------------------------------------------------


Counts = Mapping[str, Mapping[str, int]]
"""The counters of caches, by their names."""


def status_object(
    status: Status, rate: float, caches: Counts, warnings: Sequence[str]
) -> dict[str, Any]:
    """A status for a machine."""
    job = asdict(status.job) if status.job else None
    generator = status.owner.split("/")[0]
    return {
        "job": job,
        "done": status.done,
        "generator": generator or None,
        "lease": {"owner": status.owner or None, "token": status.token, "left": status.lease_left},
        "handlers": status.handlers,
        "sequence": status.sequence,
        "queue": status.queue,
        "again": status.again,
        "later": status.later,
        "temp": status.temp,
        "stored": status.stored,
        "errors": status.errors,
        "taken": status.taken,
        "stored_per_second": round(rate, 1),
        "takeovers": status.takeovers,
        "reclaimed": int(status.stats.get("reclaimed", 0)),
        "retries": int(status.stats.get("retries", 0)),
        "caches": caches,
        "warnings": list(warnings),
    }


def status_lines(
    status: Status, rate: float, caches: Counts, warnings: Sequence[str]
) -> Iterator[str]:
    """A status for a person."""
    if status.job is None:
        yield "job        none yet"
    else:
        done = " (done)" if status.done else ""
        yield f"job        {status.job.messages:,} messages from {status.job.source}{done}"
    if status.owner:
        left = f"token {status.token}, {status.lease_left:.1f} s left"
        yield f"generator  {status.owner.split('/')[0]} ({left})"
    else:
        yield f"generator  none (last token {status.token})"
    for name, life_left in status.handlers.items():
        alive = life_left >= 0
        life = f"alive, {life_left:.1f} s left" if alive else f"dead for {-life_left:.1f} s"
        yield f"handler    {name} ({life})"
    yield f"sequence   {status.sequence:,}"
    yield f"queue      {status.queue:,} waiting, {status.again:,} again, {status.later:,} later"
    yield f"temp       {status.temp:,}"
    yield f"stored     {status.stored:,} ({rate:,.0f} a second)"
    yield f"errors     {status.errors:,}, and {status.taken:,} taken"
    yield (
        f"history    {status.takeovers} takeovers, {status.stats.get('reclaimed', 0)} messages "
        f"reclaimed, {status.stats.get('retries', 0)} retries"
    )
    for name, counts in caches.items():
        told = (f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items() if count)
        yield f"cache      {name}: {', '.join(told)}"
    for warning in warnings:
        yield f"warning    {warning}"


def lease_lines(leases: Sequence[Holder], as_json: bool) -> Iterator[str]:
    """All leases: a table for a person, an object each for a machine."""
    if as_json:
        yield from (json.dumps(lease._asdict()) for lease in leases)
        return
    rows = [("LEASE", "OWNER", "TOKEN", "LEFT", "WAITING")]
    for lease in leases:
        left = f"{lease.left:.1f}" if lease.owner else "-"
        waiting = str(len(lease.waiters))
        rows.append((lease.name, lease.owner or "-", str(lease.token), left, waiting))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def verdict_lines(verdict: Verdict) -> Iterator[str]:
    """What `verify` found, for a person."""
    for place, count in verdict.places.items():
        if count:
            yield f"{place:8} {count:>12,}"
    yield from verdict.examples
    if verdict.foreign:
        yield f"{verdict.foreign:,} foreign"
    yield (
        f"{verdict.sequence:,} generated: {verdict.lost:,} lost, {verdict.twice:,} stored twice"
        f" ({verdict.seconds:.1f} s)"
    )
