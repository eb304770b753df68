"""What a server says about itself, who else is there, and what may lose messages although it works.

A user who may not ask (INFO) is told so, and goes on.
"""

from __future__ import annotations

import redis
from redis.exceptions import NoPermissionError

from .errors import ServerUnfit
from .io import SyncClient, SyncIO, parts, run
from .topology import parse

ANSWER = 1.2
"""Seconds after which an answer counts as lost that is asked for once."""
INFO_REFUSED = "this user may not ask with INFO (ACL SETUSER ... +info), so nobody can tell "


def read_info(io: SyncIO, *sections: str) -> dict[str, str]:
    """What a server says about itself, in some sections or in all that it shows by default.

    Asked once by an IO that has no patience, else again while the server is away.
    """
    words = [("INFO", section) for section in sections or ("default",)]
    texts = [run(io.command(*one) if io.patience else io.ask(one, ANSWER)) for one in words]
    lines = [line for text in texts for line in text.decode(errors="replace").splitlines()]
    return dict(line.split(":", 1) for line in lines if ":" in line)


def members(url: str, client: SyncClient, io: SyncIO) -> str:
    """Who else is there, behind Sentinel or in a Cluster, such as ` (Cluster, 3 primaries)`."""
    there = parse(url)
    if there is None:
        return ""
    if isinstance(client, redis.RedisCluster):
        return f" (Cluster, {len(parts(client))} primaries)"
    count = read_info(io, "replication").get("connected_slaves", "0")
    replicas = f"{count} replica{'' if count == '1' else 's'}"
    return f" (Sentinel service {there.service}, primary {io.server}, {replicas})"


def check_eviction(io: SyncIO, where: str, unsafe: bool) -> str:
    """Refuse a server that may delete our keys when it is full; returns a warning, or "".

    Args:
        io: to the server.
        where: its URL, masked.
        unsafe: only warn.

    Raises:
        ServerUnfit: allkeys-* and volatile-* policies both delete the lease.
    """
    try:
        policy = read_info(io, "memory").get("maxmemory_policy")
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


def warnings(io: SyncIO) -> list[str]:
    """What an operator should know about a server, each with its remedy."""
    try:
        info = read_info(io, "persistence", "memory")
    except NoPermissionError:
        return [f"{INFO_REFUSED}whether it has an append-only file, evicts keys, or is full"]
    found = []
    if info.get("aof_enabled", "0") == "0":
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
    most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if most and used > 0.9 * most:
        found.append(f"memory is {used / most:.0%} full; raise maxmemory")
    return found
