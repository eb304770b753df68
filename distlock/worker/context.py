"""What the parts of one copy share: its options, its numbers, and its way to say things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ..io import Interrupted, SyncIO
from ..keys import Keys

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """The options of one copy; times are seconds.

    Attributes:
        messages, seed, attempts, handler_ttl: shape the job; None means: as the job says. One
            that is named must fit the job that is there.
        renew_every: X, messages after which the generator renews its lease.
        ttl: T, the lease time.
        try_every: N, messages after which a handler tries for the lease.
        interval: pause between two generated messages.
        batch: messages in one hand at most.
        max_queue: messages in the queue from which on the generator waits.
        max_body: bytes that a body or a result may have.
        wait_replicas: replicas that must have what was written before it counts.
    """

    messages: int | None = None
    seed: int | None = None
    attempts: int | None = None
    handler_ttl: float | None = None
    renew_every: int = 5
    ttl: float = 5.0
    try_every: int = 10
    interval: float = 0.0
    batch: int = 500
    max_queue: int = 100_000
    max_body: int = 16 * 2**20
    wait_replicas: int = 0


@dataclass
class State:
    """What one copy is doing and has done.

    Attributes:
        role: starting, generator or handler.
        hand: messages in its hand.
        generated, stored, failed: messages; one that fails twice counts twice.
        forgotten_messages, forgotten_results: of what this copy has written or seen, how much the
            server had acknowledged and a failover has forgotten.
        terms: how often it was the generator.
        done: whether the job is complete.
        left_behind: whether it was stopped while the server was away.
        seconds: how long it ran.
    """

    role: str = "starting"
    hand: int = 0
    generated: int = 0
    stored: int = 0
    failed: int = 0
    forgotten_messages: int = 0
    forgotten_results: int = 0
    terms: int = 0
    done: bool = False
    left_behind: bool = False
    seconds: float = 0.0


class Say(Protocol):
    """Told of each event."""

    def __call__(self, kind: str, text: str, /, **numbers: Any) -> None:
        """Tell: the kind of event, one line for a person, and numbers for a machine."""


@dataclass
class Context:
    """What the parts of one copy share.

    Attributes:
        name: unique among all copies.
        io: the connection of the main thread.
        keys: the pipeline's keys.
        settings: the options.
        say: told of each event.
        state: the numbers, for a view.
        known: the highest id that is known to have been generated.
        tells_failures: whether each failure of a message is an event.
    """

    name: str
    io: SyncIO
    keys: Keys
    settings: Settings
    say: Say
    state: State = field(default_factory=State)
    known: int = 0
    tells_failures: bool = False

    def compare(self, sequence: int) -> None:
        """Say how many messages a failover has forgotten, given the last id that it left."""
        first, forgotten = sequence + 1, self.known - sequence
        if forgotten > 0:
            self.state.forgotten_messages += forgotten
            text = f"the server has forgotten {forgotten:,} messages that it had acknowledged: ids "
            text += f"{first:,} to {self.known:,} are generated again"
            self.say("gap", text, sequence=sequence, forgotten=forgotten)
            self.known = sequence

    def pause(self, wait: Callable[[], T]) -> T | None:
        """Wait; a signal ends the wait, and the loop around it sees that it is to stop."""
        try:
            return wait()
        except Interrupted:
            return None
