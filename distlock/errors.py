"""What can go wrong, as types.

Every error is one line for a person: what happened, where, and what to do about it. Each type
carries the exit code of the program; nothing here touches the outside.
"""

from __future__ import annotations

import sys


class DistlockError(Exception):
    """Base of all errors raised by distlock.

    Attributes:
        exit_code: what the program exits with when this error ends it.
    """

    exit_code = 1


def not_installed(error: ModuleNotFoundError) -> str:
    """One line with a remedy for a package that is missing."""
    package = str(error.name).partition(".")[0]
    return (
        f"the package {package!r} is not installed in {sys.prefix}: "
        f"{sys.executable} -m pip install {package}"
    )


class UsageError(DistlockError):
    """An option, a name, a file or a function that cannot be used as given."""

    exit_code = 2


class CommandNotFound(UsageError):
    """A command that is to run under a lease and that does not exist; the code is a shell's."""

    exit_code = 127


class ServerUnreachable(DistlockError):
    """Nobody answers, or whoever answers does not let us in."""

    exit_code = 3


class PasswordNeeded(ServerUnreachable):
    """The server asks for a password, and none was given."""


class ServerUnfit(DistlockError):
    """The server answers but cannot serve: too old, read-only, full, or with too few rights."""


class JobGone(DistlockError):
    """The job's record vanished or was replaced while this copy worked on it."""


class GeneratorFailed(DistlockError):
    """The source of messages raised, or gave something that is no message."""


class LeaseError(DistlockError):
    """Something about a lease.

    Attributes:
        key: the lease's key on the server.
        owner: the owner id meant: the holder's, as far as it is known, or the caller's own.
        token: its fencing token, 0 if none is known.
    """

    def __init__(self, text: str, key: str = "", owner: str = "", token: int = 0) -> None:
        super().__init__(text)
        self.key = key
        self.owner = owner
        self.token = token


class NotAcquired(LeaseError):
    """The lease could not be had: somebody else holds it, or too few replicas confirmed it."""


class LeaseLost(LeaseError):
    """The lease has gone on: what was done under it is no longer accepted."""


class StaleToken(DistlockError):
    """A write came with a token below one that was seen before: its lease has gone on."""


class CacheError(DistlockError):
    """Something about a value of the cache.

    Attributes:
        key: the user's key.
    """

    def __init__(self, text: str, key: str = "") -> None:
        super().__init__(text)
        self.key = key


class ExecutionLimitExceeded(CacheError, TimeoutError):
    """The value was not there within the caller's execution limit."""


class GetterFailed(CacheError):
    """The getter of the flight that this caller waited for raised; its own text is the message."""


class NodesUnreachable(CacheError):
    """No node of the cache answers, or not the one that is needed."""

    exit_code = 3


class CannotEncode(DistlockError):
    """A value that the cache cannot store: it would not come back as it is, or it is too large."""


class Corrupt(DistlockError):
    """What lies in the cache cannot be read: damaged, somebody else's, or of another serializer."""
