"""What callers, getters, deletes, failures, cancellations, expiries and deaths do in any order.

Three caches of one event loop, each a process of its own to the server. A getter ends when a rule
says so; the end of a value's life and that of a dead computer's right are brought about on the
server. What is checked after each step: a getter runs once, but for what explains another call; who
asked after a delete or a set got nothing older; and in the end nobody is left waiting.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import redis
import redis.asyncio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from distlock import AsyncCache, GetterFailed
from tests.conftest import ONE_KIND, Server

VALUE, FLIGHT = "distlock:value:{cache:k}", "distlock:flight:{cache:k}"
HOW: dict[str, Any] = {"expire": 1000.0, "execution_limit": 60.0}
CACHES = st.integers(0, 2)


@dataclass
class Asked:
    """One call of `get` or `refresh`.

    Attributes:
        task: it.
        began: the step at which it began.
    """

    task: asyncio.Task[Any]
    began: int


@dataclass
class Running:
    """One call of a getter.

    Attributes:
        began: the step at which it began.
        end: what it will return, or raise.
    """

    began: int
    end: asyncio.Future[Any] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Machine(RuleBasedStateMachine):
    """The machine; `url` is set by the test."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.client = redis.Redis.from_url(self.url)
        self.client.flushall()
        self.runner = asyncio.Runner()
        self.caches = [self._do(self._make()) for _ in range(3)]
        self.step = 0
        self.asked: list[Asked] = []
        self.running: list[Running] = []
        self.born: dict[str, int] = {}  # value -> the step at which its getter began, or it was set
        self.voids = [0]  # steps at which everything older became void
        self.excuses = 0  # events that explain one more call of a getter
        self.calls = 0

    def _do(self, core: Any) -> Any:
        return self.runner.run(core)

    async def _make(self) -> AsyncCache:
        return AsyncCache(redis.asyncio.Redis.from_url(self.url), ttl=600)

    async def _getter(self) -> str:
        self.calls += 1
        run = Running(self.step)
        self.running.append(run)
        try:
            value = str(await run.end)
        finally:
            self.running.remove(run)
        self.born[value] = run.began
        return value

    async def _settle(self) -> None:
        """Let all that is under way go on as far as it goes."""
        for _ in range(4):
            for cache in self.caches:
                member, _own = await cache._nodes.of("k", VALUE)
                io = member.hub.take()
                await io.ask(("PING",), 5.0)
                for _ in range(4):
                    await asyncio.sleep(0)

    def _next(self, core: Any = None) -> None:
        self.step += 1
        if core is not None:
            self._do(core)
        self._do(self._settle())

    @rule(of=CACHES, refresh=st.sampled_from([False] * 5 + [True]))
    def somebody_asks(self, of: int, refresh: bool) -> None:
        async def ask() -> None:
            verb = self.caches[of].refresh if refresh else self.caches[of].get
            call = verb("k", self._getter, **HOW)
            self.asked.append(Asked(asyncio.create_task(call), self.step))

        self.excuses += refresh
        self._next(ask())

    @precondition(lambda self: self.running)
    @rule(data=st.data(), fails=st.sampled_from([False] * 5 + [True]))
    def a_getter_ends(self, data: st.DataObject, fails: bool) -> None:
        run = data.draw(st.sampled_from(self.running))
        if fails:
            self.excuses += 1
            run.end.set_exception(ValueError("it fails"))
        else:
            run.end.set_result(f"value {self.step}")
        self._next()

    @precondition(lambda self: self.asked)
    @rule(of=CACHES, what=st.sampled_from(["delete", "set", "expire", "die", "cancel"]))
    def something_happens(self, of: int, what: str) -> None:
        self.excuses += 1
        if what == "delete":
            self._next(self.caches[of].delete("k"))
            self.voids.append(self.step)
        elif what == "set":
            value = f"set {self.step}"
            self.born[value] = self.step + 1
            self._next(self.caches[of].set("k", value, expire=1000))
            self.voids.append(self.step)
        elif what == "cancel":
            next((one for one in self.asked if not one.task.done()), self.asked[0]).task.cancel()
            self._next()
        else:
            self.client.delete(VALUE if what == "expire" else FLIGHT)
            self._next()

    @invariant()
    def a_getter_is_called_once_but_for_what_explains_another_call(self) -> None:
        assert self.calls <= self.excuses + 1

    @invariant()
    def who_asked_after_a_delete_got_nothing_older(self) -> None:
        for asked in self.asked:
            if not asked.task.done() or asked.task.cancelled():
                continue
            if error := asked.task.exception():
                assert isinstance(error, GetterFailed | ValueError)
                continue
            void = max(step for step in self.voids if step < asked.began or step == 0)
            assert self.born[asked.task.result()] >= void, (asked, self.voids, self.born)

    def teardown(self) -> None:
        async def end() -> None:
            while pending := [asked.task for asked in self.asked if not asked.task.done()]:
                self.client.delete(FLIGHT) if not self.running else None
                for run in self.running:
                    if not run.end.done():
                        run.end.set_result("the end")
                await asyncio.wait(pending, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
                assert self.step < 1000
                self.step += 1

        try:
            self.step = 0
            self._do(end())
        finally:
            self.runner.close()


@ONE_KIND
def test_10_the_cache_does_what_the_model_says(real: Server) -> None:
    Machine.url = real.url
    quick = settings(
        max_examples=200,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=quick)
