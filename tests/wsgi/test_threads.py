"""ThreadPool: how many calls run at once, which thread runs them, and how the loop hears of their end."""

from __future__ import annotations

import asyncio
import contextvars
import math
import sys
import threading
import time
import traceback
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hybridworker.wsgi import threads
from hybridworker.wsgi.threads import ThreadPool
from hybridworker.wsgi.waits import WAIT_BOUNDS, WAITS
from tests.fakes import FakeCall
from tests.waiting import DEADLINE, passes, run, until, until_seen


class Job(FakeCall):
    """A call that runs ``work`` and tells who ran it."""

    lane = 0

    def __init__(self, work: Callable[[], Any] = lambda: None, label: str = "GET /") -> None:
        self.work = work
        self.label = label
        self.lasting = False
        self.queued_at = 0.0
        self.thread: threading.Thread | None = None
        self.variables: contextvars.Context | None = None
        self.running = threading.Event()
        self.done = asyncio.Event()
        self.wakes = 0
        self.result: Any = None

    def run(self, variables: contextvars.Context) -> None:
        self.variables = variables
        self.thread = threading.current_thread()
        self.running.set()
        self.result = self.work()

    def wake(self) -> None:
        self.wakes += 1
        self.done.set()


class Gate(Job):
    """A call that waits until it is let go."""

    def __init__(self, label: str = "GET /") -> None:
        self.open = threading.Event()
        super().__init__(lambda: passes(self.open), label)


@asynccontextmanager
async def pool_of(size: int) -> AsyncIterator[ThreadPool]:
    pool = ThreadPool(size)
    try:
        yield pool
    finally:
        pool.close()


async def ended(*jobs: Job) -> None:
    async with asyncio.timeout(DEADLINE):
        for job in jobs:
            await job.done.wait()


async def started(*jobs: Job) -> None:
    await until(lambda: all(job.running.is_set() for job in jobs))


def test_call_runs_in_a_daemon_thread() -> None:
    """A thread of the pool does not hold the process."""

    async def main() -> None:
        async with pool_of(1) as pool:
            job = Job(lambda: "done")
            pool.submit(job)
            await ended(job)
            assert job.result == "done"
            assert job.thread is not None
            assert job.thread is not threading.current_thread()
            assert job.thread.daemon

    run(main())


def test_a_thread_has_one_context_for_its_life_empty_at_first() -> None:
    """A call sees what the one before has left set in its thread, and nothing of the loop or of another thread."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    both = threading.Barrier(2)

    def work(name: str, meets: bool) -> tuple[str, int]:
        seen = variable.get("unset"), len(contextvars.copy_context())
        variable.set(name)
        if meets:
            both.wait(DEADLINE)
        return seen

    async def main() -> None:
        variable.set("import")
        async with pool_of(2) as pool:
            jobs = [Job(lambda name=name: work(name, True)) for name in "ab"]  # type: ignore[misc]
            for job in jobs:
                pool.submit(job)
            await ended(*jobs)
            assert [job.result for job in jobs] == [("unset", 0)] * 2
            assert jobs[0].thread is not jobs[1].thread
            next_one = Job(lambda: work("c", False))
            pool.submit(next_one)
            await ended(next_one)
            before = next(job for job in jobs if job.thread is next_one.thread)
            assert next_one.result == ("a" if before is jobs[0] else "b", 1)
            assert next_one.variables is before.variables
            assert next_one.variables is not None
            assert next_one.variables[variable] == "c"
            assert variable.get() == "import"

    run(main())


@pytest.mark.parametrize("asked", [False, True], ids=["ended", "posted"])
def test_the_loop_is_told_outside_of_the_context_of_a_call(asked: bool) -> None:
    """What the loop does about one call must not see the variables of another one that has told it."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[str] = []

    class Telling(Job):
        def wake(self) -> None:
            seen.append(variable.get("unset"))
            super().wake()

    async def main() -> None:
        async with pool_of(1) as pool:
            job: Telling

            def work() -> None:
                variable.set("mine")
                if asked:
                    pool.post(job)

            job = Telling(work)
            pool.submit(job)
            await ended(job)

    run(main())
    assert set(seen) == {"unset"}


def test_no_thread_before_the_first_call() -> None:
    """Threads are started when they are needed, one after the other."""

    async def main() -> None:
        async with pool_of(8) as pool:
            before = threading.active_count()
            assert pool.busy == pool.queued == 0
            first, second = Job(), Job()
            pool.submit(first)
            await ended(first)
            await until(lambda: pool.busy == 0)
            pool.submit(second)
            await ended(second)
            assert threading.active_count() == before + 1
            assert first.thread is second.thread

    run(main())


def test_one_thread_runs_quick_calls_in_order() -> None:
    """Calls that compute are drained by one thread: several would only fight for the GIL."""

    async def main() -> None:
        async with pool_of(8) as pool:
            order: list[int] = []
            jobs = [Job(lambda number=number: order.append(number)) for number in range(100)]  # type: ignore[misc]
            pool._check_later = lambda: None  # type: ignore[method-assign]  # on a busy machine all looks slow
            for job in jobs:
                pool.submit(job)
            await ended(*jobs)
            assert order == list(range(100))
            assert len({job.thread for job in jobs}) == 1

    run(main())


@pytest.mark.parametrize("size", [2, 5])
def test_s23_blocked_calls_get_as_many_threads_as_there_are(size: int) -> None:
    """``size`` calls that block run at once, and no more than that."""

    async def main() -> None:
        async with pool_of(size) as pool:
            gates = [Gate() for _ in range(size + 2)]
            for gate in gates:
                pool.submit(gate)
            await started(*gates[:size])
            assert pool.busy == size
            assert pool.queued == 2
            assert not any(gate.running.is_set() for gate in gates[size:])
            gates[0].open.set()
            await started(gates[size])
            for gate in gates:
                gate.open.set()
            await ended(*gates)
            await until(lambda: pool.busy == 0)
            assert pool.queued == 0

    run(main())


def test_calls_never_overlap_with_one_thread() -> None:
    """With one thread a call begins when the one before it has ended."""

    async def main() -> None:
        async with pool_of(1) as pool:
            running: list[str] = []
            most: list[int] = []

            def work() -> None:
                running.append("x")
                for _ in range(20):
                    time.sleep(0)  # whoever is there may run
                most.append(len(running))
                running.pop()

            jobs = [Job(work) for _ in range(10)]
            for job in jobs:
                pool.submit(job)
            await ended(*jobs)
            assert most == [1] * 10
            assert len({job.thread for job in jobs}) == 1

    run(main())


def test_thread_that_went_idle_last_is_woken_first() -> None:
    """Surplus threads stay asleep."""

    async def main() -> None:
        async with pool_of(3) as pool:
            gates = [Gate() for _ in range(3)]
            for gate in gates:
                pool.submit(gate)
            await started(*gates)
            for awake, gate in zip((2, 1, 0), gates, strict=True):
                gate.open.set()
                await ended(gate)
                await until(lambda awake=awake: pool.busy == awake)  # type: ignore[misc]
            for _ in range(3):
                job = Job()
                pool.submit(job)
                await ended(job)
                await until(lambda: pool.busy == 0)
                assert job.thread is gates[2].thread

    run(main())


def test_blocked_thread_does_not_delay_the_next_call() -> None:
    """A thread that is known to be blocked is not counted upon: the next call gets another at once."""

    async def main() -> None:
        async with pool_of(2) as pool:
            gate, job = Gate(), Job()
            pool.submit(gate)
            await until(lambda: pool._blocked)
            await until(lambda: not pool._checking)  # nothing is left to find out, so nobody looks
            pool._check_later = lambda: None  # type: ignore[method-assign]
            pool.submit(job)
            await ended(job)
            assert not gate.done.is_set()
            gate.open.set()
            await ended(gate)
            await until(lambda: pool.busy == 0)
            assert not pool._blocked

    run(main())


def test_call_that_computes_for_long_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread is not taken for blocked while the processor is used; after a while another one helps all the same."""
    monkeypatch.setattr(time, "process_time", lambda: 2 * time.monotonic())

    async def main() -> None:
        async with pool_of(2) as pool:
            gate, job = Gate(), Job()
            pool.submit(gate)
            await started(gate)
            pool.submit(job)
            await ended(job)
            assert not pool._blocking
            assert gate.thread is not job.thread
            gate.open.set()
            await ended(gate)

    run(main())


def test_result_behind_which_a_call_blocks_is_not_held_back() -> None:
    """The end of a quick call is heard although its thread has gone on to a call that blocks."""

    async def main() -> None:
        async with pool_of(1) as pool:
            first, gate = Job(), Gate()
            pool.submit(first)
            pool.submit(gate)
            await ended(first)
            assert not gate.done.is_set()
            gate.open.set()
            await ended(gate)

    run(main())


def test_results_share_an_announcement() -> None:
    """Posts that the loop has not yet looked at cost one call_soon_threadsafe."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        announced: list[Any] = []

        class Loop:
            def __getattr__(self, name: str) -> Any:
                return getattr(loop, name)

            def call_soon_threadsafe(self, callback: Any, **options: Any) -> Any:
                announced.append(callback)
                return loop.call_soon_threadsafe(callback, **options)

        pool = ThreadPool(1, Loop())  # type: ignore[arg-type]
        jobs = [Job() for _ in range(3)]
        for job in jobs:
            pool.post(job)
        assert len(announced) == 1
        await ended(*jobs)
        pool.post(jobs[0])
        assert len(announced) == 2
        await until(lambda: jobs[0].wakes == 2)

    run(main())


def test_post_while_running() -> None:
    """A call that posts itself is woken before it ends, and once more at its end."""

    async def main() -> None:
        async with pool_of(1) as pool:
            gate = Gate()
            work = gate.work

            def posting() -> None:
                pool.post(gate)
                work()

            gate.work = posting
            pool.submit(gate)
            await ended(gate)
            assert gate.wakes == 1
            gate.open.set()
            await until(lambda: gate.wakes == 2)

    run(main())


def test_queued_call_can_be_cancelled() -> None:
    """A call that no thread has taken never runs; one that was taken goes on."""

    async def main() -> None:
        async with pool_of(1) as pool:
            gate, job, last = Gate(), Job(), Job()
            for call in (gate, job, last):
                pool.submit(call)
            await started(gate)
            assert pool.cancel(job)
            assert not pool.cancel(job)
            assert not pool.cancel(gate)
            gate.open.set()
            await ended(gate, last)
            assert not job.running.is_set()
            assert job.wakes == 0

    run(main())


def test_snapshot_names_the_running_calls() -> None:
    """Reports show which thread runs what since when."""

    async def main() -> None:
        async with pool_of(2) as pool:
            before = time.monotonic()
            gates = [Gate("GET /a"), Gate("POST /b")]
            assert pool.snapshot() == []
            for gate in gates:
                pool.submit(gate)
            await started(*gates)
            calls = sorted(pool.snapshot(), key=lambda call: call.label)
            assert [call.label for call in calls] == ["GET /a", "POST /b"]
            assert [call.thread for call in calls] == [gate.thread.ident for gate in gates if gate.thread]
            assert all(before <= call.started <= time.monotonic() for call in calls)
            for gate in gates:
                gate.open.set()
            await ended(*gates)

    run(main())


def test_slow_call_is_reported_once_with_its_stack() -> None:
    """A call older than the limit is reported with what it does; the next slow call of the thread again."""

    async def main() -> None:
        async with pool_of(1) as pool:
            for label in ("GET /slow", "GET /again"):
                gate = Gate(label)
                pool.submit(gate)
                await started(gate)
                now = time.monotonic()
                assert pool.report_slow(now, 60) == []
                assert pool.report_slow(now + 100, 0) == []  # no limit
                [(reported, age, frame)] = pool.report_slow(now + 61, 60)
                assert reported == label
                assert 61 <= age < 61 + DEADLINE
                assert "passes(self.open)" in "".join(traceback.format_stack(frame))
                assert pool.report_slow(now + 99, 60) == []
                gate.open.set()
                await ended(gate)
                await until(lambda: pool.busy == 0)
                assert pool.report_slow(now + 99, 60) == []

    run(main())


def test_queue_age_counts_from_the_first_look() -> None:
    """The age of the queue is the time since its head was first seen there, and 0 when nobody waits."""

    async def main() -> None:
        async with pool_of(1) as pool:
            assert pool.queue_age(5) == 0
            gates = [Gate() for _ in range(3)]
            for gate in gates:
                pool.submit(gate)
            await started(gates[0])
            assert pool.queue_age(10) == 0
            assert pool.queue_age(13) == 3
            gates[0].open.set()
            await started(gates[1])
            assert pool.queue_age(14) == 0
            gates[1].open.set()
            gates[2].open.set()
            await ended(*gates)
            assert pool.queue_age(20) == 0

    run(main())


def test_waiting_times_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``timed`` the pool knows how many calls have waited for how long, since it was last asked."""

    async def main() -> None:
        pool = ThreadPool(1, timed=True)
        try:
            gate, job = Gate(), Job()
            pool.submit(gate)
            await started(gate)
            pool.submit(job)
            job.queued_at -= 3600
            gate.open.set()
            await ended(gate, job)
            ((*counts, microseconds),) = pool.waits.take()
            assert len(counts) == len(WAIT_BOUNDS) + 1
            assert (sum(counts), counts[-1]) == (2, 1)
            assert 3600e6 <= microseconds < (3600 + DEADLINE) * 1e6
            assert pool.waits.take() == [[0] * WAITS]
        finally:
            pool.close()

    run(main())


def test_idle_thread_keeps_no_call_alive() -> None:
    """What a call referred to is freed when it is over, not when the thread gets its next one."""

    async def main() -> None:
        async with pool_of(1) as pool:
            job = Job()
            gone = weakref.ref(job)
            pool.submit(job)
            await ended(job)
            await until(lambda: pool.busy == 0)
            del job
            assert gone() is None

    run(main())


def test_close_lets_busy_threads_finish() -> None:
    """After close() an idle thread ends at once, and a busy one when it has drained the queue."""

    async def main() -> None:
        pool = ThreadPool(2)
        gate, job = Gate(), Job()
        pool.submit(gate)
        await started(gate)
        pool.submit(job)
        await ended(job)
        await until(lambda: pool.busy == 1)
        pool.close()
        await until(lambda: job.thread and not job.thread.is_alive())
        gate.open.set()
        await ended(gate)
        await until(lambda: gate.thread and not gate.thread.is_alive())

    run(main())


def test_closed_loop_does_not_hurt_a_thread() -> None:
    """A call that outlives its loop ends in silence: the process is leaving."""
    pools: list[ThreadPool] = []
    gate = []

    async def main() -> None:
        pool = ThreadPool(1)
        pools.append(pool)
        gate.append(Gate())
        pool.submit(gate[0])
        await started(gate[0])

    run(main())
    pools[0]._closing = True
    gate[0].open.set()
    thread = gate[0].thread
    assert thread is not None
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_thread_that_finds_a_call_at_the_last_moment() -> None:
    """A call that is queued while a thread is going to rest is found by that thread, woken or not."""

    class Meddler(list[Any]):
        """An ``idle`` list in which a call arrives right after the thread has joined it."""

        def append(self, worker: Any) -> None:
            super().append(worker)
            if meddle:
                meddle.pop()()

    async def main() -> None:
        async with pool_of(1) as pool:
            pool._idle = Meddler()
            for wake in (False, True):
                late, job = Job(), Job()

                def arrive(late: Job = late, wake: bool = wake) -> None:
                    pool._queue.append(late)
                    if wake:
                        pool._wake()

                meddle.append(arrive)
                pool.submit(job)
                await ended(job, late)
                await until(lambda: pool.busy == 0)

    meddle: list[Any] = []
    run(main())


def test_system_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started those that run do the work; without any the caller is told."""

    async def main() -> None:
        async with pool_of(2) as pool:
            start = threading.Thread.start

            def refuse(self: threading.Thread) -> None:
                raise RuntimeError("can't start new thread")

            monkeypatch.setattr(threading.Thread, "start", refuse)
            gate, job = Gate(), Job()
            with pytest.raises(RuntimeError, match="can't start"):
                pool.submit(job)
            assert pool.cancel(job)
            monkeypatch.setattr(threading.Thread, "start", start)
            pool.submit(gate)
            await started(gate)
            monkeypatch.setattr(threading.Thread, "start", refuse)
            pool.submit(job)
            await until(lambda: pool._blocked)
            assert pool.queued == 1
            gate.open.set()
            await ended(gate, job)
            assert job.thread is gate.thread

    run(main())


def test_wake_of_a_thread_that_woke_by_itself() -> None:
    """With all threads awake there is nobody to wake and none to start."""

    async def main() -> None:
        async with pool_of(1) as pool:
            gate = Gate()
            pool.submit(gate)
            pool._wake()
            gate.open.set()
            await ended(gate)
            assert len(pool._workers) == 1

    run(main())


def test_quick_call_ends_the_time_of_blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    """While calls block each one gets its thread at once; after a quick one that is over."""

    async def main() -> None:
        async with pool_of(3) as pool:
            gate, second = Gate(), Gate()
            pool.submit(gate)
            await until(lambda: pool._blocking)
            pool.submit(second)
            await started(second)
            monkeypatch.setattr(threads, "PATIENCE", DEADLINE)  # whatever happens now is quick
            job = Job()
            pool.submit(job)
            await ended(job)
            await until(lambda: not pool._blocking)
            gate.open.set()
            second.open.set()
            await ended(gate, second)

    run(main())


def test_nothing_is_counted_where_nobody_asks() -> None:
    """It would cost every call two looks at the clock."""

    async def main() -> None:
        async with pool_of(1) as pool:
            job = Job()
            pool.submit(job)
            await until(lambda: job.wakes > 0)
            assert job.queued_at == 0.0
            assert sum(pool.waits.take()[0]) == 0

    run(main())


@pytest.mark.parametrize("daemon", [None, True])
def test_a_thread_that_a_call_starts_is_no_daemon_unless_it_says_so(daemon: bool | None) -> None:
    """As under gthread; the thread of the pool itself keeps nobody from leaving."""

    async def main() -> None:
        async with pool_of(1) as pool:
            job = Job(lambda: threading.Thread(target=int, daemon=daemon).daemon)
            pool.submit(job)
            await asyncio.wait_for(job.done.wait(), DEADLINE)
            assert job.result is bool(daemon)
            assert job.thread is not None
            assert job.thread.daemon

    run(main())


# -- calls whose time is up


def test_a_lost_thread_is_replaced_until_it_comes_back() -> None:
    """``size`` of them at most; those that come back end, and what they had counted stays."""

    async def main() -> None:
        pool = ThreadPool(2, timed=True)
        lost = [Gate(f"GET /{number}") for number in range(3)]
        for number, gate in enumerate(lost[:2]):
            pool.submit(gate)
            await started(gate)
            found = pool.expire(lambda call, gate=gate: call is gate)  # type: ignore[misc]
            assert found is not None
            assert (found.label, found.frame is not None) == (gate.label, True)
            assert gate.expired
            assert pool.expire(lambda call, gate=gate: call is gate) is None  # type: ignore[misc]
            assert pool.lost == number + 1
            assert pool.calls() == 0
        both = [Gate(), Gate()]
        for gate in both:
            pool.submit(gate)
        await started(*both)  # at once, beside those that are lost
        pool.submit(lost[2])
        assert pool.calls() == 3
        for gate in lost[:2]:
            gate.open.set()
        await ended(*lost[:2])
        await until(lambda: pool.lost == 0)
        assert not lost[2].running.is_set()
        both[0].open.set()
        await started(lost[2])
        both[1].open.set()
        lost[2].open.set()
        await ended(*both, lost[2])
        assert sum(pool.waits.take()[0][:-1]) == 5
        assert len(pool._workers) == 2
        pool.close()

    run(main())


def test_a_single_thread_is_lost_without_a_replacement() -> None:
    """Calls would overlap. When it comes back it goes on."""

    async def main() -> None:
        async with pool_of(1) as pool:
            gate, job = Gate(), Job()
            pool.submit(gate)
            await started(gate)
            assert pool.expire(lambda call: call is gate) is not None
            pool.submit(job)
            assert pool.lost == 1
            assert pool._capacity == 1
            gate.open.set()
            await ended(gate, job)
            assert job.thread is gate.thread
            assert pool.lost == 0

    run(main())


def test_a_queued_call_that_expires_never_runs() -> None:
    """It is no longer in the queue."""

    async def main() -> None:
        async with pool_of(1) as pool:
            gate, queued = Gate(), Job()
            pool.submit(gate)
            await started(gate)
            pool.submit(queued)
            assert pool.expire(lambda call: call is queued) is None
            assert queued.dropped
            assert pool.queued == 0
            pool.submit(queued)
            pool.drop_late(math.inf)  # no patience is set, so there is none to lose
            assert pool.queued == 1
            assert pool.cancel(queued)
            gate.open.set()
            await ended(gate)
            assert not queued.running.is_set()

    run(main())


@pytest.mark.parametrize("delay", [0.0, 45.0], ids=["here", "elsewhere"])
def test_a_call_that_has_waited_too_long_is_dropped(delay: float) -> None:
    """By the tick, or by the thread that takes it; the time before it came here counts with that here."""

    async def main() -> None:
        pool = ThreadPool(1, patience=50.0)
        gate, late, patient, fresh = Gate(), Job(), Job(), Job()
        pool.submit(gate)
        await started(gate)
        for job in (late, patient, fresh):
            pool.submit(job)
        late.delay = delay
        late.queued_at -= 60.0 - delay
        pool.drop_late(time.monotonic())
        await ended(late)
        assert (late.dropped, patient.dropped) == (True, False)
        patient.delay = delay
        patient.queued_at -= 60.0 - delay
        gate.open.set()
        await ended(gate, patient, fresh)
        assert (patient.dropped, patient.running.is_set()) == (True, False)
        assert fresh.running.is_set()
        pool.close()

    run(main())


def test_an_abandoned_call_is_lost_by_its_time_in_the_thread() -> None:
    """Its request is no longer in flight, so nobody else looks."""

    async def main() -> None:
        async with pool_of(2) as pool:
            gone, served = Gate("GET /gone"), Gate()
            for gate in (gone, served):
                pool.submit(gate)
            await started(gone, served)
            gone.abandoned = True
            now = time.monotonic()
            assert pool.expire_abandoned(now, 60.0) == []
            assert [call.label for call in pool.expire_abandoned(now + 61, 60.0)] == ["GET /gone"]
            assert pool.expire_abandoned(now + 62, 60.0) == []
            assert pool.lost == 1
            for gate in (gone, served):
                gate.open.set()
            await ended(gone, served)

    run(main())


def test_a_thread_that_comes_back_in_the_moment_in_which_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends, as one that was lost; another one takes its place, and the next call is not left lying."""

    async def main() -> None:
        async with pool_of(2) as pool:
            gate, job = Gate(), Job()
            pool.submit(gate)
            await started(gate)

            def frames() -> dict[int, Any]:
                gate.open.set()
                until_seen(lambda: pool._workers[0].call is None)
                return {}

            monkeypatch.setattr(sys, "_current_frames", frames)
            assert pool.expire(lambda call: call is gate) is None
            await ended(gate)
            assert pool.lost == 0
            assert all(worker.is_alive() for worker in pool._workers)
            pool.submit(job)
            await ended(job)

    run(main())


def test_whether_a_call_is_not_over() -> None:
    """It waits, or runs; one that is lost counts no more."""

    async def main() -> None:
        async with pool_of(1) as pool:
            gate, queued = Gate(), Job()
            pool.submit(gate)
            pool.submit(queued)
            await started(gate)
            assert pool.runs(lambda call: call is gate)
            assert pool.runs(lambda call: call is queued)
            gate.open.set()
            await ended(gate, queued)
            await until(lambda: not pool.runs(lambda call: call is queued))
            assert not pool.runs(lambda call: call is gate)

    run(main())
