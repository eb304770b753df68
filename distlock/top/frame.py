"""What `top` shows, as lines of text that fit into a width and a height.

Rules:

- Whatever comes from the server is made harmless. Colours say nothing that the words do not.
- From the top: the job, the lease, the numbers with their last minutes, the caches, the copies,
  what happened. When there is little room, the copies and the oldest events are cut first; a line
  is cut at the right. Of errors in a row only the last is shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from ..glyphs import bar, sparkline
from ..look import Failed, Look
from ..text import harmless
from .history import Copy, Event, History, waiting

STYLES = {"generator": "bold green", "handler": "cyan", "dead": "bold red"}
KEYS = "q quit  p {pause}  e {errors}  arrows scroll"


@dataclass
class Pose:
    """How the view is looked at.

    Attributes:
        width, height: of the terminal, in characters; a height of None is as much as is needed.
        fancy: whether block elements can be shown.
        paused: the view stands still.
        errors: the errors are shown, not the copies; None: the copies are.
        first: how many copies, or errors, are scrolled past.
        keys: whether there are any.
        where: which pipeline on which server.
    """

    width: int = 80
    height: int | None = None
    fancy: bool = True
    paused: bool = False
    errors: Sequence[Failed] | None = None
    first: int = 0
    keys: bool = False
    where: str = ""
    now: float = field(default_factory=time.monotonic)


def frame(history: History, pose: Pose) -> list[Text]:
    """The lines of one drawing."""
    head = [_title(history, pose), *_numbers(history, pose)]
    foot = [_footer(pose)] if pose.keys else []
    room = None if pose.height is None else max(pose.height - len(head) - len(foot), 0)
    body = _errors(pose, room) if pose.errors is not None else _body(history, pose, room)
    lines = [*head, *body]
    if pose.height is not None:
        lines = lines[: max(pose.height - len(foot), 0)]
        lines += [Text()] * (pose.height - len(foot) - len(lines))
    lines += foot
    for line in lines:
        line.no_wrap = True
        line.truncate(pose.width, overflow="crop")
    return lines


def _title(history: History, pose: Pose) -> Text:
    line = Text(f"distlock top  {harmless(pose.where)}", "bold")
    if history.away:
        seconds = pose.now - history.away_since
        line = Text(f"the server is away for {seconds:.0f} s: ", "bold red")
        line.append(harmless(history.away))
    elif history.now:
        line.append(time.strftime("  %H:%M:%S", time.localtime(history.now.status.now)), "dim")
    return line


def _footer(pose: Pose) -> Text:
    said = KEYS.format(
        pause="go on" if pose.paused else "pause",
        errors="copies" if pose.errors is not None else "errors",
    )
    line = Text(said, "reverse")
    return line.append("  PAUSED", "bold") if pose.paused else line


# --- the numbers -----------------------------------------------------------------------------


def _numbers(history: History, pose: Pose) -> Iterator[Text]:
    look = history.now
    if look is None:
        return
    yield _job(look, history, pose)
    yield _lease(look, pose)
    yield from _series(look, history, pose)
    for name, counts in look.caches.items():
        asked = sum(history.cache_rate(name, what) for what in ("hits", "near_hits", "misses"))
        told = (f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items() if count)
        yield Text(f"cache   {name} {asked:,.0f}/s: {', '.join(told)}")


def _job(look: Look, history: History, pose: Pose) -> Text:
    job, status = look.status.job, look.status
    if job is None:
        return Text("job     none yet", "dim")
    ended = status.stored + status.errors + status.taken
    share = ended / job.messages
    said = f" {share:4.0%} of {job.messages:,}"
    if status.done:
        said += ", done"
    elif (rate := (history.rate("stored") or 0) + (history.rate("errors") or 0)) > 0:
        said += f", {_span((job.messages - ended) / rate)} to go"
    room = max(min(pose.width - 8 - len(said), 40), 0)
    return Text("job     ").append(bar(share, room, pose.fancy), "green").append(said)


def _span(seconds: float) -> str:
    """A time in few characters."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 100 else f"{hours:.0f} h"


def _lease(look: Look, pose: Pose) -> Text:
    """The lease as a bar that runs down, also between two looks."""
    status = look.status
    history = f"  {status.takeovers:,} takeovers"
    if not status.owner:
        said = f"free, last token {status.token}{history}"
        return Text("lease   ").append(said, "bold red" if status.generating else "")
    left = max(status.lease_left - (pose.now - look.at), 0.0)
    share = left / status.lease_ttl if status.lease_ttl else 0.0
    line = Text("lease   ").append(bar(share, 10, pose.fancy), "green" if share > 0.3 else "red")
    owner = harmless(status.owner.split("/")[0])
    return line.append(f" {left:4.1f} s  {owner}  token {status.token}{history}")


def _series(look: Look, history: History, pose: Pose) -> Iterator[Text]:
    status = look.status
    rate, failing = history.rate("stored") or 0.0, history.rate("errors") or 0.0
    rows = (
        ("queue", waiting(look), f"{status.again:,} again, {status.later:,} later"),
        ("temp", max(status.temp, 0), "in hand"),
        ("stored", status.stored, f"{rate:,.0f}/s"),
        ("errors", status.errors, f"{failing:,.1f}/s, {status.taken:,} taken"),
    )
    for name, number, said in rows:
        line = Text(f"{name:7} {number:>13,}  {said:24}")
        if name == "errors" and number:
            line.stylize("bold red", 0, 21)
        room = min(pose.width - len(line.plain) - 1, 120)
        if room >= 8:
            line.append(sparkline([*history.series[name]], room, pose.fancy), "cyan")
        yield line


# --- copies, events, errors ------------------------------------------------------------------


def _body(history: History, pose: Pose, room: int | None) -> list[Text]:
    copies = history.copies()
    events = _in_short([*history.events])
    if room is None:
        return [*_copies(copies, pose, len(copies)), *_events(events[-10:], 10)]
    for_events = min(len(events), max(room // 3, room - len(copies) - 3)) + 1
    for_copies = max(room - for_events, 0)
    return [*_copies(copies, pose, for_copies - 1), *_events(events, for_events - 1)]


def _in_short(events: Sequence[Event]) -> list[Event]:
    """The events without errors that others follow at once: else these are all that is seen."""
    later = [*events[1:], None]
    return [
        event
        for event, then in zip(events, later, strict=False)
        if not (then and event.kind == then.kind == "error")
    ]


def _copies(copies: Sequence[Copy], pose: Pose, room: int) -> Iterator[Text]:
    wide = min(max(pose.width - 47, 12), 64)
    yield Text(f"{'COPY':{wide}} {'ROLE':9} {'RATE/s':>10} {'IN HAND':>8} {'LAST SIGN':>10}", "dim")
    first = max(min(pose.first, len(copies) - room), 0)
    shown = copies[first : first + max(room, 0)]
    for at, copy in enumerate(shown):
        hidden = len(copies) - first - len(shown)
        if hidden and at == len(shown) - 1:
            yield Text(f"... {hidden + 1} more", "dim")
            return
        name = harmless(copy.name)
        name = name if len(name) <= wide else name[: wide - 1] + "~"
        rate = "-" if copy.rate is None else f"{copy.rate:,.0f}"
        line = Text(f"{name:{wide}} ").append(f"{copy.role:9}", STYLES[copy.role])
        yield line.append(f" {rate:>10} {copy.hand:>8,} {copy.age:>8.1f} s")
    if not copies:
        yield Text("none", "dim")


def _events(events: Sequence[Event], room: int) -> Iterator[Text]:
    yield Text("WHAT HAPPENED", "dim")
    for event in events[-room:] if room > 0 else []:
        yield event_line(event)


def event_line(event: Event) -> Text:
    """One event."""
    when = time.strftime("%H:%M:%S", time.localtime(event.time))
    line = Text(f"{when} {event.kind:8} ", "bold yellow" if event.bad else "")
    return line.append(harmless(event.text), "not bold")


def _errors(pose: Pose, room: int | None) -> Iterator[Text]:
    errors = pose.errors or ()
    yield Text(f"{'FAILED':8} {'MESSAGE':>11} {'TRIES':>5}  ERROR (the newest first)", "dim")
    first = max(min(pose.first, len(errors) - (room or 0) + 1), 0)
    for error in errors[first:]:
        when = time.strftime("%H:%M:%S", time.localtime(error.time))
        yield Text(f"{when} {error.id:>11,} {error.attempt:>5}  {harmless(error.text)}")
    if not errors:
        yield Text("none", "dim")
