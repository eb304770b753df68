"""The peers that are measured beside us, as far as they are installed."""

from __future__ import annotations

from importlib.util import find_spec

MODULES = {
    "redis-lock": "redis_lock",
    "pottery": "pottery",
    "dogpile": "dogpile",
    "cashews": "cashews",
    "aiocache": "aiocache",
}
"""The module of each side that is a peer's."""


def present(*kinds: str) -> tuple[str, ...]:
    """Those of the sides that can be measured."""
    return tuple(
        kind for kind in kinds if kind not in MODULES or find_spec(MODULES[kind]) is not None
    )
