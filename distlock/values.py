"""What an option may be given, beside what click knows: times, sizes, names, files, modes.

A value that cannot be meant is a usage error; what a shell can complete, it may ask for here.
"""

from __future__ import annotations

import math
from typing import Any

import click
from click.shell_completion import CompletionItem

from .errors import UsageError
from .keys import check_name

DAY = 86_400.0


class Number(click.ParamType[float]):
    """A number from `least` to `most`, by default a time in seconds; fractions allowed."""

    name = "seconds"

    def __init__(self, least: float = 0.0, most: float = DAY) -> None:
        self.least = least
        self.most = most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number, or a usage error."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not self.least <= number <= self.most:  # false for NaN, too
            text = f"{str(value)[:40]!r} is not a number from {self.least:g} to {self.most:g}"
            raise click.BadParameter(text, ctx, param)
        return number


class Size(click.IntRange):
    """A number of bytes."""

    name = "bytes"


class Name(click.ParamType[str]):
    """The name of a pipeline or a cache."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, or a usage error."""
        try:
            return check_name(value)
        except UsageError as error:
            raise click.BadParameter(str(error), ctx, param) from error


class File(click.ParamType[str]):
    """The name of a file; whether it can be read shows when it is."""

    name = "file"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Have the shell complete it."""
        return [CompletionItem(incomplete, type="file")]


class Mode(click.ParamType[str]):
    """The optional value of a mode: never the name of a subcommand."""

    name = "how"

    def __init__(self, *values: str) -> None:
        self.values = values

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What the help shows."""
        return "[" + "|".join(self.values) + "]"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The values that begin so."""
        return [CompletionItem(value) for value in self.values if value.startswith(incomplete)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """One of the values; `yes` and `true` mean the first."""
        word = str(value).lower()
        if word in ("yes", "true"):
            return self.values[0]
        if word in self.values:
            return word
        if ctx and isinstance(ctx.command, click.Group) and value in ctx.command.commands:
            text = f"it and {value!r} are two things to do: do one after the other"
        else:
            text = f"{str(value)[:40]!r} is none of: {', '.join(self.values)}"
        raise click.BadParameter(text, ctx, param)
