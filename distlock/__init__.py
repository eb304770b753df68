"""distlock: a fenced lease and an exactly-once pipeline on Redis or Valkey.

`Lease` and `AsyncLease` are for any program. `python app_start.py` (or `distlock`) is the
application; `distlock.Message` is what a handler's function receives.
"""

from typing import TYPE_CHECKING, Any

from .errors import DistlockError, LeaseError, LeaseLost, NotAcquired, StaleToken
from .message import Message

if TYPE_CHECKING:
    from .lease import AsyncLease, Holder, Lease, TokenGuard, lead

__version__ = "0.1.0"
__all__ = [
    "AsyncLease",
    "DistlockError",
    "Holder",
    "Lease",
    "LeaseError",
    "LeaseLost",
    "Message",
    "NotAcquired",
    "StaleToken",
    "TokenGuard",
    "__version__",
    "lead",
]


def __getattr__(name: str) -> Any:
    """The lease is imported when it is asked for: it needs redis, which the help does not."""
    if name in __all__:
        from . import lease

        return getattr(lease, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
