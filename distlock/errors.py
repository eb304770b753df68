"""What can go wrong, as types.

Every error is one line for a person: what happened, where, and what to do about it. Each type
carries the exit code of the program; nothing here touches the outside.
"""

from __future__ import annotations


class DistlockError(Exception):
    """Base of all errors raised by distlock.

    Attributes:
        exit_code: what the program exits with when this error ends it.
    """

    exit_code = 1


class UsageError(DistlockError):
    """An option, a name, a file or a function that cannot be used as given."""

    exit_code = 2


class ServerUnreachable(DistlockError):
    """Nobody answers, or whoever answers does not let us in."""

    exit_code = 3


class ServerUnfit(DistlockError):
    """The server answers but cannot serve: too old, read-only, full, or with too few rights."""


class JobGone(DistlockError):
    """The job's record vanished or was replaced while this copy worked on it."""


class GeneratorFailed(DistlockError):
    """The source of messages raised, or gave something that is no message."""


class LeaseLost(DistlockError):
    """The lease has gone on: what was done under it is no longer accepted."""
