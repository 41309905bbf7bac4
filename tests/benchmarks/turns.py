"""
Servers that take turns: how a throughput is measured on a machine that others use, too.

The host of a virtual machine may halve its speed and give it back within seconds. Figures of the same server, measured
twice in a row, then differ by 20 to 40 percent. Here all servers of a scenario are started side by side, each with a
load of its own, and take turns of :data:`TURN` seconds, in another order each time: so they share every moment of the
machine. A round is one start of each server and its turns; what differs from start to start shows in the spread of the
rounds.

Invariant: during the turns at most one server goes on, and its load with it. The others are stopped (SIGSTOP), with all
that is under way. So nothing takes the time of another one, the wall clock of a server is the sum of its turns, and an
idle server costs nothing. A load begins and connects with its first turn, or has connected before that
(:func:`clients.opened`), and its own end comes only after the last one: what it has counted is the work of the turns.
"""

from __future__ import annotations

import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from subprocess import Popen, TimeoutExpired

from tests.benchmarks import load, processes
from tests.benchmarks.clients import TURNS
from tests.benchmarks.measure import WARM_UP, Sample, check_access_log, launch_of, mib, of_load
from tests.benchmarks.processes import cpu_seconds, dismiss, spawned, state, tell
from tests.benchmarks.scenarios import Scenario
from tests.benchmarks.servers import Running, Server, ServerError, serving

#: Seconds of a turn, and between two, for the signals to arrive.
TURN, PAUSE = 0.05, 0.002

#: Seconds between the end of the turns and that of the first load.
MARGIN = 0.25

#: Seconds that a load may need for its end without its server, and a server for what a load has left behind.
PATIENCE = 5.0

#: A server is idle that uses no more than so many seconds of processor time in so many.
IDLE = (0.002, 0.05)

#: Starts a program stopped, so that it begins with its first turn.
STOPPED = ("sh", "-c", 'kill -STOP $$; exec "$@"', "sh")


class Seat:
    """
    One server in a round, with its load.

    Invariant: what goes wrong with one of them ends that one, is kept as its ``failure``, and reaches no other.
    """

    def __init__(self, scenario: Scenario, server: Server, stack: ExitStack) -> None:
        self.scenario = scenario
        self.server = server
        self.processes = stack.enter_context(ExitStack())
        self.started: list[Popen[bytes]] = []  #: the server, and its load when there is one
        self.failure: Exception | None = None
        self.sample: Sample | None = None
        self.turns = 0
        self.wall = 0.0  #: seconds of the turns
        self.begun = 0.0  #: when the first turn began
        self.latencies: load.Load | None = None
        self.used: tuple[float, float] = (0.0, 0.0)  #: processor time that server and load had used before the turns

    # -- before the turns

    def start(self, directory: Path, cores: Sequence[int]) -> None:
        launch = launch_of(self.scenario, server=self.server.name)
        self.running: Running = self.processes.enter_context(serving(self.server, launch, directory, cores))
        self.started.append(self.running.process)

    def check(self) -> None:
        load.check(self.scenario, self.running)

    def warm_up(self) -> None:
        """The latencies of a load that nothing interrupts, when the server is warm; some loads tell none."""
        if self.scenario.client == "h2load" or self.scenario.pipeline > 1:
            return
        self.go()
        self.latencies = load.put_load(self.scenario, self.running, WARM_UP)
        self.settle()
        self.stop()

    def settle(self) -> None:
        """Let the server do what a load has left behind: requests that nobody waits for are no part of the next one."""
        deadline = time.monotonic() + PATIENCE
        used, period = IDLE
        family = processes.family(self.running.process.pid)
        while time.monotonic() < deadline:
            before = cpu_seconds(family)
            time.sleep(period)
            if cpu_seconds(family) - before <= used and not processes.busy(family):
                return

    def open(self, seconds: int) -> None:
        """Have a load of so many seconds, from its first turn on, ready and stopped."""
        self.go()
        command = load.command(self.scenario, self.running, seconds)
        if self.scenario.client in ("wrk", "h2load"):
            command = [*STOPPED, *command]
        environment = {**os.environ, TURNS: "1"}
        self.load: Popen[bytes] = self.processes.enter_context(spawned(command, env=environment, **load.PIPES))
        deadline = time.monotonic() + load.START_DEADLINE
        while (letter := state(self.load)) != "T":
            if letter == "Z":
                load.outcome(self.scenario, self.load, 0)
                raise ServerError("the load ended before its first turn")
            if time.monotonic() > deadline:
                raise ServerError("the load has not connected")
            time.sleep(0.005)
        self.started.append(self.load)
        self.stop()
        self.used = self._used()

    # -- turns

    def go(self) -> None:
        for process in self.started:  # the server first: it is there when the load goes on
            tell(process, signal.SIGCONT)

    def stop(self) -> None:
        for process in reversed(self.started):
            tell(process, signal.SIGSTOP)

    def turn(self) -> None:
        begun = time.monotonic()
        self.begun = self.begun or begun
        self.go()
        time.sleep(TURN)
        self.stop()
        self.wall += time.monotonic() - begun
        self.turns += 1

    # -- behind the turns

    def finish(self, seconds: int) -> None:
        """
        Let the load come to its end, and report what it has counted.

        The server is stopped meanwhile: a load that began late in its first turn goes on for as long, and its answers
        would be those of no turn.
        """
        used, load_used = (after - before for after, before in zip(self._used(), self.used, strict=True))
        rss = mib(self.running)
        tell(self.load, signal.SIGCONT)
        with suppress(TimeoutExpired):
            self.load.wait(max(0.0, self.begun + seconds - time.monotonic()) + PATIENCE)
        tell(self.running.process, signal.SIGCONT)  # a load that has not ended waits for answers that it does not count
        result = {**load.outcome(self.scenario, self.load, seconds), "seconds": self.wall}
        seen = load.seen(self.scenario, result, load_used)
        if self.scenario.access_log:
            check_access_log(self.running.folder / self.server.access_log, seen.requests)
        calm = self.latencies or replace(seen, p50=None, p99=None, max=None)
        seen = replace(seen, p50=calm.p50, p99=calm.p99, max=calm.max)
        self.sample = replace(of_load(self.scenario, seen, used), rss=rss, turns=self.turns)

    def _used(self) -> tuple[float, float]:
        return self.running.cpu_seconds(), cpu_seconds([self.load.pid])

    @property
    def result(self) -> Sample | Exception:
        return self.failure or self.sample or ServerError("it was not measured")

    def attempt(self, step: Callable[..., None], *arguments: object) -> None:
        """Do a step, unless an earlier one has failed; end the processes where it fails."""
        if self.failure is None:
            try:
                step(*arguments)
            except Exception as exc:  # whatever goes wrong costs this server's figure, and not those of the others
                self.failure = exc
                for process in self.started:
                    dismiss(process)
                self.processes.close()


def duration(servers: int, seconds: int) -> int:
    """Seconds, in whole ones, in which each of so many servers gets about ``seconds`` of turns."""
    return math.ceil(servers * seconds * (1 + PAUSE / TURN) + MARGIN)


def take_turns(seats: Sequence[Seat], seconds: int) -> None:
    """Give each as many turns as there is time for, before the first load has ended."""
    end = time.monotonic() + seconds - MARGIN
    cycle = len(seats) * (TURN + PAUSE)
    while seats and (time.monotonic() + cycle < end or not seats[0].turns):
        for seat in random.sample(seats, len(seats)):
            seat.turn()
            time.sleep(PAUSE)


def measure(
    scenario: Scenario, servers: Sequence[Server], seconds: int, directory: Path, cores: Sequence[int]
) -> Mapping[str, Sample | Exception]:
    """
    A round: server -> what was measured of it in about so many seconds of turns, or why nothing was.

    They are started in their order, and end together.
    """
    with ExitStack() as stack:
        seats = [Seat(scenario, server, stack) for server in servers]
        try:
            for seat in seats:
                seat.attempt(seat.start, directory, cores[: scenario.cores])
            for seat in seats:
                seat.attempt(seat.check)
            _exercise(scenario, _left(seats))
            for step in (Seat.settle, Seat.stop, Seat.warm_up):
                for seat in seats:
                    seat.attempt(step, seat)
            whole = duration(len(_left(seats)), seconds)
            for seat in seats:
                seat.attempt(seat.open, whole)
            take_turns(_left(seats), whole)
            for seat in seats:
                seat.attempt(seat.finish, whole)
        finally:
            for process in (process for seat in seats for process in seat.started):
                if process.returncode is None:
                    dismiss(process)  # all of them, before one is waited for
    return {seat.server.name: seat.result for seat in seats}


def _left(seats: Iterable[Seat]) -> list[Seat]:
    """Those that nothing has happened to."""
    return [seat for seat in seats if seat.failure is None]


def _exercise(scenario: Scenario, seats: Sequence[Seat]) -> None:
    """
    All servers under load at once: whatever the first requests import or allocate is behind them then.

    What goes wrong here is of no account: it will again when there is nothing else that could be the cause.
    """
    with ExitStack() as stack:
        loads = []
        for seat in seats:
            command = load.command(scenario, seat.running, WARM_UP)
            loads.append(stack.enter_context(spawned(command, **load.PIPES)))
        for process in loads:
            try:
                load.outcome(scenario, process, WARM_UP)
            except ServerError:
                pass
