"""distlock: a fenced lease, an exactly-once pipeline and a compute-once cache on Redis or Valkey.

`Lease`, `Cache` and their twins for asyncio are for any program. `python app_start.py` (or
`distlock`) is the application; `distlock.Message` is what a handler's function receives.
"""

from typing import TYPE_CHECKING, Any

from .errors import (
    CannotEncode,
    DistlockError,
    ExecutionLimitExceeded,
    GetterFailed,
    LeaseError,
    LeaseLost,
    NodesUnreachable,
    NotAcquired,
    StaleToken,
)
from .message import Message

if TYPE_CHECKING:
    from .cache import AsyncCache, Cache, Expires, Node, Serializer, Stats
    from .lease import AsyncLease, Holder, Lease, TokenGuard, lead

__version__ = "0.1.0"
_LEASE = ("AsyncLease", "Holder", "Lease", "TokenGuard", "lead")
_CACHE = ("AsyncCache", "Cache", "Expires", "Node", "Serializer", "Stats")
__all__ = [
    "AsyncCache",
    "AsyncLease",
    "Cache",
    "CannotEncode",
    "DistlockError",
    "ExecutionLimitExceeded",
    "Expires",
    "GetterFailed",
    "Holder",
    "Lease",
    "LeaseError",
    "LeaseLost",
    "Message",
    "Node",
    "NodesUnreachable",
    "NotAcquired",
    "Serializer",
    "StaleToken",
    "Stats",
    "TokenGuard",
    "__version__",
    "lead",
]


def __getattr__(name: str) -> Any:
    """What needs redis is imported when it is asked for: the help does not."""
    if name in _LEASE:
        from . import lease

        return getattr(lease, name)
    if name in _CACHE:
        from . import cache

        return getattr(cache, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
