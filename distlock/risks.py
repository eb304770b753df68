"""What may lose messages on a server, though it works: evictions, no append-only file, little room.

A user who may not ask (INFO) is told so, and goes on.
"""

from __future__ import annotations

import redis
from redis.exceptions import NoPermissionError

from .errors import ServerUnfit

INFO_REFUSED = "this user may not ask with INFO (ACL SETUSER ... +info), so nobody can tell "


def check_eviction(client: redis.Redis, where: str, unsafe: bool) -> str:
    """Refuse a server that may delete our keys when it is full; returns a warning, or "".

    Args:
        client: the server.
        where: its URL, masked.
        unsafe: only warn.

    Raises:
        ServerUnfit: allkeys-* and volatile-* policies both delete the lease.
    """
    try:
        policy = client.info("memory").get("maxmemory_policy")
    except NoPermissionError:
        policy = None
    if policy == "noeviction":
        return ""
    if policy is None:
        return f"{INFO_REFUSED}whether it evicts keys: its maxmemory-policy must be noeviction"
    text = f"the eviction policy {policy} may delete the lease and messages"
    if unsafe:
        return f"{text}, and --unsafe allows it"
    raise ServerUnfit(
        f"{where}: {text}: CONFIG SET maxmemory-policy noeviction, or take the risk with --unsafe"
    )


def warnings(client: redis.Redis) -> list[str]:
    """What an operator should know about a server, each with its remedy."""
    try:
        info = client.info("persistence") | client.info("memory")
    except NoPermissionError:
        return [f"{INFO_REFUSED}whether it has an append-only file, evicts keys, or is full"]
    found = []
    if not info.get("aof_enabled"):
        found.append(
            "no append-only file: what was done since the last snapshot is lost when the server "
            "dies; CONFIG SET appendonly yes"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(
            f"the eviction policy {policy} may delete our keys; CONFIG SET maxmemory-policy "
            "noeviction"
        )
    most, used = info.get("maxmemory", 0), info.get("used_memory", 0)
    if most and used > 0.9 * most:
        found.append(f"memory is {used / most:.0%} full; raise maxmemory")
    return found
