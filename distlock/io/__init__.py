"""The only modules that wait: sockets, clocks, threads and event loops are here.

The capabilities (lease, pipeline) are written once, as coroutines over a small object (`IO` in
`base`). The synchronous IO (`sync`) never suspends, so a synchronous call is one `send(None)`; a
core that suspends there by mistake is a loud error. The other one (`asynchronous`) is for asyncio.
`hub` keeps what all of one process share, `caller` calls the user's functions.

Whatever logs, logs under the name `distlock` and imports this package: here it is made silent until
the program that uses the library wants to hear it.
"""

import logging

from .asynchronous import AsyncIO
from .background import Background
from .base import (
    AWAY,
    ELSEWHERE,
    IO,
    Argument,
    Interrupted,
    Unconfirmed,
    is_away,
    refuses_now,
    run,
)
from .body import Body
from .caller import Caller, TimeLimitExceeded, is_async
from .crew import AsyncLatch, Crew, Latch, Tasks, Threads, is_due
from .hub import AsyncHub, Hub
from .keyboard import Keyboard
from .loops import PerLoop
from .packing import Request
from .pulse import Pulse
from .route import AsyncClient, Route, SyncClient, parts
from .schedule import Kept
from .sync import SyncIO
from .turns import Mutex

logging.getLogger("distlock").addHandler(logging.NullHandler())

__all__ = [
    "AWAY",
    "ELSEWHERE",
    "IO",
    "Argument",
    "AsyncClient",
    "AsyncHub",
    "AsyncIO",
    "AsyncLatch",
    "Background",
    "Body",
    "Caller",
    "Crew",
    "Hub",
    "Interrupted",
    "Kept",
    "Keyboard",
    "Latch",
    "Mutex",
    "PerLoop",
    "Pulse",
    "Request",
    "Route",
    "SyncClient",
    "SyncIO",
    "Tasks",
    "Threads",
    "TimeLimitExceeded",
    "Unconfirmed",
    "is_async",
    "is_away",
    "is_due",
    "parts",
    "refuses_now",
    "run",
]
