"""The cache: an expensive value is computed once in the whole system.

- `twins`: `Cache` and `AsyncCache`, and what a user can tell them; `cached`: keys for functions.
- `core`: a call from its look to its value. `claiming`: the right to compute, and waiting for who
  has it (`waiting`). `computing`: calling the getter, and what becomes of its value. `flight`: what
  a process knows of a flight, and renewing its right.
- `nodes`: who has a key; `member`: one of them, and whether it serves. `near`: values that are kept
  in the process. `codec`, `tags`: values as bytes. `counters`: what is counted. `options`: what is
  checked.
"""

from .codec import Serializer
from .counters import Stats, read_counters
from .nodes import Node
from .options import Expires
from .twins import AsyncCache, Cache

__all__ = ["AsyncCache", "Cache", "Expires", "Node", "Serializer", "Stats", "read_counters"]
