"""A distributed lease: fenced, self-renewing, handed on in order; for threads and for asyncio.

`core` is its logic, written once; here it has its two faces. `watch` sees a holder's death early,
`guard` refuses old tokens elsewhere, `holder` looks in, `leading` elects a leader.
"""

from .core import LeaseCore
from .guard import TokenGuard
from .holder import Holder, read_all
from .leading import lead
from .twins import AsyncLease, Lease
from .watch import Watch

__all__ = ["AsyncLease", "Holder", "Lease", "LeaseCore", "TokenGuard", "Watch", "lead", "read_all"]
