"""The only modules that wait: sockets, clocks, threads and event loops are here.

The capabilities (lease, pipeline) are written once, as coroutines over a small object (`IO` in
`base`). The synchronous IO (`sync`) never suspends, so a synchronous call is one `send(None)`; a
core that suspends there by mistake is a loud error. `caller` calls the user's functions.
"""

from .base import IO, Argument, Interrupted, run
from .caller import Caller, TimeLimitExceeded, is_async
from .sync import Background, SyncIO

__all__ = [
    "IO",
    "Argument",
    "Background",
    "Caller",
    "Interrupted",
    "SyncIO",
    "TimeLimitExceeded",
    "is_async",
    "run",
]
