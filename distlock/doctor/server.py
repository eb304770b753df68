"""What the server says of itself: version, role, persistence, replication, memory, connections.

CONFIG is forbidden on many managed servers; what only it tells is a note then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from redis.exceptions import NoPermissionError, ResponseError

from ..about import read_info
from ..connect import OLDEST
from ..io import SyncIO, run
from ..keys import Keys
from .finding import BAD, NOTE, OK, Finding

FULL = 0.9
"""Share of the memory, or of the connections, above which it is nearly used up."""
SETTINGS = ("save", "appendfsync", "min-replicas-to-write")
Facts = Mapping[str, str]


def look(io: SyncIO, keys: Keys) -> Iterator[Finding]:
    """All of it."""
    facts = read_info(io)
    settings = _settings(io)
    yield _version(facts)
    yield from _role(io, facts)
    if settings is None:
        remedy = "ACL SETUSER ... +config|get, or look at them where the server is managed"
        text = "CONFIG is forbidden: fsync, snapshots and min-replicas-to-write cannot be seen"
        yield Finding(NOTE, "settings", text, remedy)
    yield from _persistence(facts, settings or {})
    yield _replication(io, facts, settings or {})
    yield from _memory(facts)
    yield _connections(facts)


def _settings(io: SyncIO) -> Facts | None:
    """What CONFIG says; None when it may not be asked, or is not there."""
    found: dict[str, str] = {}
    try:
        for name in SETTINGS:
            answer = run(io.command("CONFIG", "GET", name))
            words = (
                [word for pair in answer.items() for word in pair]
                if isinstance(answer, dict)
                else answer
            )
            found |= {name: words[1].decode()} if len(words) > 1 else {}
    except (NoPermissionError, ResponseError):
        return None
    return found


def _version(facts: Facts) -> Finding:
    kind = "valkey" if "valkey_version" in facts else "redis"
    version = facts.get(f"{kind}_version", "0")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST[kind]:
        needed = ".".join(map(str, OLDEST[kind]))
        remedy = f"upgrade it: {needed} is the oldest that will do"
        return Finding(BAD, "version", f"{kind} {version} is too old", remedy)
    return Finding(OK, "version", f"{kind.capitalize()} {version}")


def _role(io: SyncIO, facts: Facts) -> Iterator[Finding]:
    if facts.get("redis_mode", facts.get("server_mode")) == "sentinel":
        text = "this is a Sentinel, it keeps no data"
        yield Finding(BAD, "role", text, "name the primary that it watches")
        return
    if facts.get("role") == "slave":
        where = f"{facts.get('master_host')}:{facts.get('master_port')}"
        state = BAD if facts.get("slave_read_only", "1") == "1" else NOTE
        yield Finding(state, "role", "this is a replica", f"name its primary, {where}")
    else:
        yield Finding(OK, "role", "primary")
    if facts.get("cluster_enabled") == "1":
        yield _cluster(io)
    elif watchers := _sentinels(io):
        yield Finding(OK, "sentinel", f"{watchers} watching this server")


def _cluster(io: SyncIO) -> Finding:
    text = run(io.command("CLUSTER", "INFO")).decode()
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    said = f"{facts['cluster_size']} shards, {facts['cluster_slots_ok']} of 16384 slots served"
    if facts["cluster_state"] == "ok":
        return Finding(OK, "cluster", said)
    remedy = "bring the missing nodes back, or assign their slots: CLUSTER NODES shows which"
    return Finding(BAD, "cluster", f"state {facts['cluster_state']}: {said}", remedy)


def _sentinels(io: SyncIO) -> int:
    """How many sentinels watch this server: each listens to a channel of theirs on it."""
    try:
        return int(run(io.command("PUBSUB", "NUMSUB", "__sentinel__:hello"))[1])
    except (NoPermissionError, ResponseError, KeyError):
        return 0


def _persistence(facts: Facts, settings: Facts) -> Iterator[Finding]:
    aof = facts.get("aof_enabled") == "1"
    if aof:
        fsync = settings.get("appendfsync")
        text = f"append-only file, fsync {fsync}" if fsync else "append-only file"
        yield Finding(OK, "persistence", text)
    else:
        kept = "since the last snapshot " if settings.get("save") else ""
        text = f"no append-only file: what was done {kept}is lost when the server dies"
        yield Finding(BAD, "persistence", text, "CONFIG SET appendonly yes")
    failed = []
    if aof and "ok" not in facts.get("aof_last_write_status", "ok"):
        failed.append("the append-only file cannot be written")
    if aof and "ok" not in facts.get("aof_last_bgrewrite_status", "ok"):
        failed.append("the append-only file cannot be rewritten")
    if "ok" not in facts.get("rdb_last_bgsave_status", "ok"):
        failed.append("the last snapshot failed")
    if failed:
        text = f"{' and '.join(failed)}: the server may refuse to write"
        remedy = "look at its log, at its disk and at the rights on its folder"
        yield Finding(BAD, "disk", text, remedy)
    if facts.get("loading") == "1":
        yield Finding(BAD, "disk", "the server is still loading its data", "wait for it")


def _replication(io: SyncIO, facts: Facts, settings: Facts) -> Finding:
    replicas = int(facts.get("connected_slaves", 0))
    good = int(facts.get("min_slaves_good_slaves", replicas))
    needed = int(settings.get("min-replicas-to-write", 0))
    said = f"{replicas} replica{'' if replicas == 1 else 's'}"
    if needed > good:
        text = f"{said}, but min-replicas-to-write is {needed}: every write is refused"
        remedy = f"start replicas, or CONFIG SET min-replicas-to-write {good}"
        return Finding(BAD, "replication", text, remedy)
    unknown = "min-replicas-to-write" not in settings
    if replicas and not needed and not (unknown and "min_slaves_good_slaves" in facts):
        if unknown:
            return Finding(NOTE, "replication", said, "see that min-replicas-to-write is set")
        text = f"{said}, min-replicas-to-write 0: a failover loses what these do not have yet"
        remedy = "CONFIG SET min-replicas-to-write 1; start copies with --wait-replicas 1"
        return Finding(BAD, "replication", text, remedy)
    if not replicas and (facts.get("cluster_enabled") == "1" or _sentinels(io)):
        text = "no replica: nothing can take over when this server dies"
        return Finding(BAD, "replication", text, "start one with --replicaof")
    return Finding(OK, "replication", f"{said}, min-replicas-to-write {needed}" if needed else said)


def _memory(facts: Facts) -> Iterator[Finding]:
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        text = f"the eviction policy {policy} may delete our keys"
        yield Finding(BAD, "eviction", text, "CONFIG SET maxmemory-policy noeviction")
    else:
        yield Finding(OK, "eviction", policy)
    used, most = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    whole = most or int(facts.get("total_system_memory", 0))
    said = f"{used / 2**20:,.0f} MB used"
    if whole:
        said += f" of {whole / 2**20:,.0f} ({used / whole:.0%})"
    if whole and used > FULL * whole:
        remedy = "raise maxmemory" if most else "give the machine more"
        yield Finding(BAD, "memory", said, f"{remedy}, or move results away")
    else:
        yield Finding(OK, "memory", said if most else f"{said}, no maxmemory")


def _connections(facts: Facts) -> Finding:
    now, most = int(facts.get("connected_clients", 0)), int(facts.get("maxclients", 10**6))
    said = f"{now:,} of {most:,}"
    if now > FULL * most:
        remedy = "CONFIG SET maxclients: each copy takes three, each waiting process one or two"
        return Finding(BAD, "connections", said, remedy)
    return Finding(OK, "connections", said)
