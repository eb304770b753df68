"""How the options of a command are shown, and where a setting may come from.

Rules:

- A help text lists the options in groups, in the order in which they are declared.
- A setting may come from the environment: `--max-queue` from DISTLOCK_MAX_QUEUE. The command line
  wins. A value from there that cannot be used is named as such.
- What to do (a mode, a yes) comes from the command line alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from click.core import ParameterSource

from .errors import UsageError


class Option(click.Option):
    """An option that stands in a group of the help.

    Args:
        group: its heading.
        setting: what the variable begins with that it may come from, too; "": from none.
    """

    def __init__(
        self,
        decls: Sequence[str],
        *,
        group: str = "Other",
        setting: str = "",
        **how: Any,
    ) -> None:
        super().__init__(decls, show_envvar=bool(setting), **how)
        self.group = group
        if setting:
            self.envvar = f"{setting}_{str(self.name).upper()}"

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """How an error names it: by its variable, when the value came from there."""
        if ctx and comes_from(ctx, str(self.name)) is ParameterSource.ENVIRONMENT:
            return f"{self.envvar} in the environment"
        return click.Parameter.get_error_hint(self, ctx)


class _Grouped(click.Command):
    """A command whose help lists the options in groups."""

    def get_help(self, ctx: click.Context) -> str:
        """The help, with the examples as this program was called."""
        return super().get_help(ctx).replace("app_start.py", str(ctx.find_root().info_name))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a section for each group, and then the commands."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record and isinstance(param, click.Option):
                groups.setdefault(getattr(param, "group", "Other"), []).append(record)
        groups["Other"] = groups.pop("Other")  # there is always --help
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


class Command(_Grouped):
    """A command."""


class Group(_Grouped, click.Group):
    """A group of commands."""

    command_class = Command
    group_class = type


def comes_from(ctx: click.Context, name: str) -> ParameterSource | None:
    """Where the value of a parameter came from."""
    return ctx.get_parameter_source(name)


@contextmanager
def naming_variables(ctx: click.Context) -> Iterator[None]:
    """Have an error that names an option say so when that came from the environment."""
    try:
        yield
    except UsageError as error:
        found = [
            str(param.envvar)
            for param in ctx.command.params
            if comes_from(ctx, str(param.name)) is ParameterSource.ENVIRONMENT
            and any(re.search(rf"{name}(?![\w-])", str(error)) for name in param.opts)
        ]
        if not found:
            raise
        raise UsageError(f"{error} ({', '.join(found)} is set in the environment)") from error
