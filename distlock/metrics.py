"""The pipeline's numbers for Prometheus: `--metrics-port` of a copy.

Rules:

- The numbers are the server's own counters, read when they are asked for: any one copy tells those
  of all, and nothing is lost with a copy. It needs prometheus-client (the extra `metrics`).
- Whether it can be served is said before anything begins. A server that is away is `distlock_up 0`
  and no other numbers.
- Names and units are Prometheus's conventions: counters end in `_total`, times are seconds. A
  counter begins anew with the job, and goes back with a failover that lost something: `rate()`
  takes both for a restart.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from redis.exceptions import RedisError

from .errors import DistlockError, UsageError
from .io import Mutex
from .look import Look, counted

REQUESTS = {"hits": "hit", "near_hits": "near_hit", "misses": "miss"}
"""Counters of a cache that together are its requests, and the label of each."""
OTHERS = {
    "computed": ("computations", "Calls of a getter."),
    "waited": ("waits", "Values that another caller's getter gave."),
    "stale": ("stale_values", "Old values that were served."),
    "refused": ("refused_values", "Values that came too late and were not kept."),
    "failures": ("failures", "Computations that ended without a value."),
    "node_deaths": ("node_deaths", "Times that a process left a node out."),
    "outages": ("outages", "Computations that no node knew of."),
}
"""The other counters of a cache."""


class Exporter:
    """Serves the numbers of one pipeline over HTTP.

    Args:
        name: the pipeline's.
        families: the module `prometheus_client.core`.
    """

    def __init__(self, name: str, families: Any) -> None:
        self._name = name
        self._families = families
        self._look: Callable[[], Look] | None = None
        self._mutex = Mutex()

    def watch(self, look: Callable[[], Look]) -> None:
        """From now on tell what is read so; before it the server counts as away."""
        self._look = look

    def collect(self) -> Iterator[Any]:
        """All numbers as they are now; called by prometheus_client for each request."""
        look = self._read()
        yield self._gauge("up", "Whether the server answers.", int(look is not None))
        if look:
            yield from self._messages(look)
            yield from self._lease(look)
            yield from self._caches(look.caches)

    def _read(self) -> Look | None:
        if self._look is None:
            return None
        with self._mutex:  # two may ask at once
            try:
                return self._look()
            except (RedisError, DistlockError, OSError):
                return None

    def _messages(self, look: Look) -> Iterator[Any]:
        status, stats = look.status, look.status.stats
        for name, count, text in (
            ("generated", status.sequence, "Messages generated."),
            ("stored", status.stored, "Messages stored."),
            ("failed", counted(look, "errors"), "Messages that failed for good."),
            ("retried", int(stats.get("retries", 0)), "Tries of messages after a failure."),
            ("reclaimed", int(stats.get("reclaimed", 0)), "Messages taken from dead handlers."),
        ):
            yield self._counter(f"messages_{name}", text, count)
        for name, count, text in (
            ("queue", status.queue, "Messages in the queue."),
            ("again", status.again, "Messages of dead handlers, to be handled again."),
            ("later", status.later, "Failed messages that wait for their next try."),
            ("temp", max(status.temp, 0), "Messages in hand."),
            ("errors", status.errors, "Messages in the errors."),
            ("taken", status.taken, "Messages whose errors were printed and removed."),
            ("job", status.job.messages if status.job else 0, "Messages of the whole job."),
        ):
            yield self._gauge(f"{name}_messages", text, count)
        yield self._gauge("job_done", "Whether all messages are handled.", int(status.done))
        alive = sum(left >= 0 for left in status.handlers.values())
        handlers = self._families.GaugeMetricFamily(
            "distlock_handlers", "Copies that handle messages.", labels=["pipeline", "state"]
        )
        handlers.add_metric([self._name, "alive"], alive)
        handlers.add_metric([self._name, "dead"], len(status.handlers) - alive)
        yield handlers

    def _lease(self, look: Look) -> Iterator[Any]:
        status = look.status
        text = "Time that the generator's lease has left; 0 when nobody holds it."
        yield self._gauge("lease_remaining_seconds", text, status.lease_left)
        yield self._gauge("lease_token", "The last fencing token given out.", status.token)
        text = "How often another generator began after the first."
        yield self._counter("lease_takeovers", text, status.takeovers)

    def _caches(self, caches: Mapping[str, Mapping[str, int]]) -> Iterator[Any]:
        if not caches:
            return
        counter = self._families.CounterMetricFamily
        text = "Values that were asked for."
        requests = counter("distlock_cache_requests", text, labels=["cache", "result"])
        for name, counts in caches.items():
            for counted_as, result in REQUESTS.items():
                requests.add_metric([name, result], counts[counted_as])
        yield requests
        for counted_as, (what, text) in OTHERS.items():
            family = counter(f"distlock_cache_{what}", text, labels=["cache"])
            for name, counts in caches.items():
                family.add_metric([name], counts[counted_as])
            yield family

    def _gauge(self, name: str, text: str, value: float) -> Any:
        return self._one(self._families.GaugeMetricFamily, name, text, value)

    def _counter(self, name: str, text: str, value: float) -> Any:
        return self._one(self._families.CounterMetricFamily, name, text, value)

    def _one(self, kind: Any, name: str, text: str, value: float) -> Any:
        family = kind(f"distlock_{name}", text, labels=["pipeline"])
        family.add_metric([self._name], value)
        return family


@contextmanager
def serving(port: int | None, name: str) -> Iterator[Exporter | None]:
    """Serve numbers while the block runs.

    Args:
        port: on which, on all interfaces; None: there is nothing to serve.
        name: the pipeline's.

    Raises:
        UsageError: the port cannot be used, or prometheus-client is not installed.
    """
    if port is None:
        yield None
        return
    try:
        client = importlib.import_module("prometheus_client")
        families = importlib.import_module("prometheus_client.core")
    except ImportError as error:
        raise UsageError(
            f"--metrics-port needs prometheus-client ({error}): pip install 'distlock[metrics]', "
            "or leave it out"
        ) from error
    exporter, registry = Exporter(name, families), client.CollectorRegistry()
    registry.register(exporter)
    try:
        server, thread = client.start_http_server(port, registry=registry)
    except OSError as error:
        raise UsageError(f"--metrics-port {port}: {error.strerror}: take another one") from error
    try:
        yield exporter
    finally:
        server.shutdown()
        server.server_close()
        thread.join(2)
