"""What the program does when no subcommand is named: be one copy, or what a mode option says.

Rules:

- What the user gave is checked before a server is asked, and the server before anything is written.
- Errors that are taken are removed only after they were written out, page by page.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .errors import DistlockError, LeaseLost, UsageError
from .opening import opened
from .options import Connection
from .progress import Progress
from .text import mask

if TYPE_CHECKING:
    from .io import SyncIO
    from .source import Source
    from .view import Drawing
    from .worker import Settings, State

JOB = ("messages", "seed", "attempts", "handler_ttl")
PACE = ("renew_every", "ttl", "try_every", "interval")
COPY = (*PACE, "batch", "max_queue", "max_body", "wait_replicas")
WORK = ("sleep", "error_rate", "time_limit")


def run_copy(connection: Connection, mine: dict[str, Any], said: dict[str, Any]) -> int:
    """Be one copy until the job is done or a signal ends it.

    Args:
        connection: the server and the pipeline.
        mine: the options that were given.
        said: all options, with their defaults.

    Returns:
        The exit code.
    """
    from .about import check_eviction
    from .connect import connect
    from .io import Route, SyncIO
    from .logs import told
    from .look import Looker
    from .metrics import serving
    from .pipeline import Records
    from .view import View
    from .work import work
    from .worker import Settings
    from .worker.process import Process, copy_name

    chosen: dict[str, Any] = {name: mine.get(name) for name in JOB}
    settings = Settings(**chosen, **{name: said[name] for name in COPY})
    handling = {name: said[name] for name in WORK}
    source, named = source_of(said), {"input", "generate"} & mine.keys()
    work(said["handle"], seed=0, **handling).close()  # a wrong function is said before anything
    log = said["log_format"]
    view = View(connection.as_json, copy_name(), log)
    listening = told(view.say) if log else nullcontext()
    with (
        serving(said["metrics_port"], connection.keys.name) as exporter,
        listening,
        opened(connection, view) as (place, io),
    ):
        if warning := check_eviction(io, mask(place.url), said["unsafe"]):
            view.say("warning", warning)
        if said["reset"]:
            reset(connection, io, said["yes"])
        elif tell_if_done(connection, io, settings, source if named else None):
            return 0
        process = Process(view.copy, place, connection.keys, settings, said["patience"], view.say)
        process.context.tells_failures = log is not None
        if exporter:
            client = connect(place.url, timeout=1.0, connect_timeout=1.0)
            exporter.watch(Looker(client, connection.keys, said["metrics_cache"]).look)
        route = Route(connect(place.url, timeout=1.0), connection.keys.job)
        watch = Records(SyncIO(route, patience=0), connection.keys)

        def draw() -> Drawing:
            from .picture import CopyPicture  # a pipe needs no rich

            return CopyPicture(process.context.state, watch.status)

        with view.picture(draw):
            code = process.run(source, lambda seed: work(said["handle"], seed=seed, **handling))
        if not process.context.state.left_behind:
            summary(connection, io, process.context.state)
    return code


def source_of(said: dict[str, Any]) -> Callable[[int], Source]:
    """What makes the source of messages, given the seed; checked here and now."""
    from .source import FileSource, FunctionSource, RandomSource

    if said["input"] and said["generate"]:
        raise UsageError("--input and --generate are two sources: leave one out")
    if said["input"] is not None:
        file = FileSource(said["input"], said["max_body"])
        return lambda seed: file
    if said["generate"] is not None:
        function = FunctionSource(said["generate"], said["max_body"])
        return lambda seed: function
    return RandomSource


def tell_if_done(
    connection: Connection,
    io: SyncIO,
    settings: Settings,
    source: Callable[[int], Source] | None,
) -> bool:
    """Say so when there is nothing left to do; raise UsageError when something else is asked for.

    Args:
        settings: with the options that were given.
        source: the source that was named, if one was.
    """
    from .pipeline import Records
    from .view import result
    from .worker import compare

    status = Records(io, connection.keys).status()
    if not status.done or status.job is None:
        return False
    wanted = source(status.job.seed) if source else None
    compare(status.job, settings, wanted, connection.keys.name)
    text = (
        f"job {connection.keys.name!r} is done already: {status.stored:,} of "
        f"{status.job.messages:,} messages stored, {status.errors:,} errors"
        f"{f' and {status.taken:,} taken' if status.taken else ''}; --reset begins anew"
    )
    numbers = {"done": True, "messages": status.job.messages, "stored": status.stored}
    numbers |= {"errors": status.errors, "taken": status.taken}
    result(numbers, text, connection.as_json)
    return True


def reset(connection: Connection, io: SyncIO, yes: bool) -> None:
    """Delete the job, after asking."""
    from .pipeline import Jobs

    jobs, name = Jobs(io, connection.keys), connection.keys.name
    if not jobs.there():
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("--reset deletes a job and nobody is there to ask: add --yes")
        question = f"Delete job {name!r} and its {jobs.sequence():,} messages?"
        if not click.confirm(question, err=True):
            raise DistlockError(f"job {name!r} stays as it is, for the answer was no")
    with Progress("deleting") as progress:
        jobs.reset(progress)


def summary(connection: Connection, io: SyncIO, state: State) -> None:
    """What this copy did, and where the job stands."""
    from .pipeline import Records
    from .view import result

    status = Records(io, connection.keys).status()
    here = f"this copy generated {state.generated:,} and stored {state.stored:,} messages"
    here += f" in {state.seconds:.1f} s" + (f", {state.failed:,} failed" if state.failed else "")
    if state.forgotten_messages or state.forgotten_results:
        here += f"; a failover has forgotten {state.forgotten_messages:,} messages and "
        here += f"{state.forgotten_results:,} results that were acknowledged, and were made again"
    if state.done and status.job:
        ended = f"{status.stored:,} stored, {status.errors:,} errors"
        text = f"done: {status.job.messages:,} messages, {ended}; {here}"
    else:
        text = f"stopped: {here}"
    numbers = {"done": state.done, "messages": status.job.messages if status.job else 0}
    numbers |= {"stored": status.stored, "errors": status.errors, "taken": status.taken}
    result(numbers | {"copy": asdict(state)}, text, connection.as_json)


def get_errors(connection: Connection, take: bool) -> None:
    """Print every error; with `take`, remove each page after it was written out."""
    from .pipeline import Records
    from .view import ErrorPrinter

    with opened(connection) as (_, io):
        records = Records(io, connection.keys)
        printer = ErrorPrinter(connection.as_json, whole=take)
        following, last = 1, records.last_error()
        with Progress("reading errors", shown=not sys.stdout.isatty()) as progress:
            while following <= last:
                following, errors = records.read_errors(following, last)
                printer.page(errors)
                if take and errors:
                    records.take([error.order for error in errors])
                progress(following - 1, last)


def retry_errors(connection: Connection) -> None:
    """Put every error there is now back in the queue."""
    from .pipeline import Records
    from .view import result

    with opened(connection) as (_, io):
        records, count = Records(io, connection.keys), 0
        following, last = 1, records.last_error()
        with Progress("putting errors back") as progress:
            while following <= last:
                following, more = records.retry(following, last)
                count += more
                progress(following - 1, last)
    text = f"{count:,} errors are back in the queue" if count else "there are no errors"
    result({"retried": count}, text, connection.as_json)


def show_status(connection: Connection, caches: Sequence[str]) -> None:
    """Print the numbers of the pipeline, and the counters of caches that have counted here."""
    from .about import warnings
    from .cache import read_counters
    from .connect import connect
    from .io import Route, SyncIO, run
    from .keys import CacheKeys
    from .pipeline import Records
    from .view import out, result, status_lines, status_object

    places = [CacheKeys(name) for name in caches]
    with opened(connection) as (place, io), connect(place.url) as client:
        records = Records(io, connection.keys)
        before = records.status()
        io.sleep_now(0.3)
        now = records.status()
        rate = (now.stored - before.stored) / max(now.now - before.now, 0.001)
        read = {}
        for keys in places:  # on a Cluster each may be elsewhere
            there = SyncIO(Route(client, keys.counters), patience=2.0)
            read[keys.name] = run(read_counters(there, keys))
        warned = warnings(io)
    counted = {name: counts for name, counts in read.items() if counts}
    if connection.as_json:
        result({"server": place.shown()} | status_object(now, rate, counted, warned), "", True)
    else:
        out(f"server     {place.shown()}")
        for line in status_lines(now, rate, counted, warned):
            out(line)


def list_leases(connection: Connection) -> None:
    """Print every lease that is held or waited for."""
    from .connect import connect
    from .io import SyncIO, parts, run
    from .lease import read_all
    from .view import lease_lines, out

    with opened(connection) as (place, _), connect(place.url) as client:
        shards = [run(read_all(SyncIO(route, patience=2.0))) for route in parts(client)]
        leases = sorted(lease for shard in shards for lease in shard)
        for line in lease_lines(leases, connection.as_json):
            out(line)


def run_command(
    connection: Connection, words: Sequence[str], ttl: float, wait: float | None
) -> int:
    """Run a command under a lease; see command.Command.

    Args:
        connection: the server, and the keys of the lease.
        words: the command and its arguments.
        ttl: of the lease, seconds.
        wait: seconds to wait for the lease, None for ever.

    Returns:
        The exit code.
    """
    from .command import Command
    from .lease import Lease
    from .view import View

    view = View(connection.as_json)
    command = Command(words, lambda text: view.say("lease", text))
    with opened(connection) as (place, _):
        lease = Lease(place.url, connection.keys.name, ttl=ttl, wait=wait, on_lost=command.lost)
        with suppress(LeaseLost), lease:
            return command.run(lease)
    return command.code or 1


def clean_temp(connection: Connection, drop: bool) -> None:
    """Empty the temp of dead handlers."""
    from . import worker
    from .view import out, result

    with opened(connection) as (_, io), Progress("cleaning the temp of the dead") as progress:
        counts = worker.clean_temp(io, connection.keys, drop, progress)
    where = "errors" if drop else "queue"
    if not connection.as_json:
        for handler, count in counts.items():
            out(f"{count:,} messages of {handler}, which died: to the {where}")
    total = sum(counts.values())
    text = f"{total:,} messages of {len(counts)} dead handlers: to the {where}"
    result({"to": where, "messages": total, "handlers": counts}, text, connection.as_json)
