"""What a server says about itself, and who else is there."""

from __future__ import annotations

import redis

from .io import SyncClient, SyncIO, parts, run
from .topology import parse

ANSWER = 1.2
"""Seconds after which the answer counts as lost; it is asked for once."""


def read_info(io: SyncIO, *sections: str) -> dict[str, str]:
    """What a server says about itself."""
    texts = [run(io.ask(("INFO", section), ANSWER)).decode() for section in sections]
    return dict(line.split(":", 1) for text in texts for line in text.splitlines() if ":" in line)


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


def warnings(io: SyncIO) -> list[str]:
    """What an operator should know about a server, each with its remedy."""
    info = read_info(io, "persistence", "memory")
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
