"""Servers that take turns: who does, that no more than one goes on, and what a failure costs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks import processes, turns
from tests.benchmarks.measure import Sample, launch_of
from tests.benchmarks.scenarios import Measure, chosen
from tests.benchmarks.servers import BASELINE, SERVERS, Running, ServerError

SLEEP = time.sleep


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("asgi-hello", True),
        ("http2-hello", True),
        ("websocket-broadcast", True),
        ("shop-flask-2", True),
        ("asgi-sleep", False),
        ("slow-clients", False),
        ("wsgi-overload", False),
        ("hup", False),
        ("startup", False),
        ("memory-rest", False),
        ("burst-64-2", False),
        ("probe-health", False),
    ],
)
def test_the_servers_of_a_throughput_take_turns(name: str, taken: bool) -> None:
    """Not those whose load must not be stopped, has company, or has an end of its own."""
    (scenario,) = chosen([name])
    assert scenario.takes_turns is taken


@pytest.mark.parametrize(("servers", "seconds"), [(1, 1), (2, 2), (6, 2), (4, 10)])
def test_each_server_gets_its_seconds(servers: int, seconds: int) -> None:
    """As many whole turns as come next to them, before the loads end."""
    time_for_turns = turns.duration(servers, seconds) - turns.MARGIN
    assert time_for_turns >= servers * seconds
    assert time_for_turns < servers * seconds * 1.05 + 1.5


def test_no_more_than_one_goes_on_and_each_has_its_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its load; between two turns nothing does."""
    (scenario,) = chosen(["asgi-hello"])
    busy = [sys.executable, "-c", "while True: pass"]
    going: list[int] = []
    with ExitStack() as stack:
        seats = [turns.Seat(scenario, SERVERS[name], stack) for name in (BASELINE, "bare", "granian")]
        for seat in seats:
            seat.started += [seat.processes.enter_context(processes.spawned(busy)) for _ in range(2)]
            seat.stop()

        def number() -> int:
            return sum({processes.state(process) for process in seat.started} != {"T"} for seat in seats)

        def all_stopped() -> None:
            deadline = time.monotonic() + 20
            while number():  # one that waits for a processor stops when it gets it
                assert time.monotonic() < deadline, "a server goes on between two turns"
                SLEEP(0.001)

        def observed(seconds: float) -> None:
            SLEEP(seconds)
            if seconds == turns.TURN:
                going.append(number())
            elif seconds == turns.PAUSE:
                all_stopped()

        all_stopped()
        with monkeypatch.context() as patched:
            patched.setattr(time, "sleep", observed)
            turns.take_turns(seats, 2)
    assert set(going) == {1}
    assert len({seat.turns for seat in seats}) == 1 and seats[0].turns
    assert all(seat.wall >= seat.turns * turns.TURN for seat in seats)
    assert all(process.returncode == -signal.SIGTERM for seat in seats for process in seat.started)


def test_a_server_settles_before_it_is_stopped(tmp_path: Path) -> None:
    """What a load has left behind is done then, also where the machine is busy."""
    (scenario,) = chosen(["asgi-hello"])
    code = "import time\nprint('ready', flush=True)\nwhile time.process_time() < 0.5: pass\ntime.sleep(60)"
    with ExitStack() as stack:
        seat = turns.Seat(scenario, SERVERS[BASELINE], stack)
        process = stack.enter_context(processes.spawned([sys.executable, "-c", code], stdout=subprocess.PIPE))
        assert process.stdout is not None and process.stdout.readline()
        seat.running = Running(process, launch_of(scenario), tmp_path, tmp_path, 0.0)
        seat.settle()
        assert processes.cpu_seconds([process.pid]) >= 0.5


def test_a_round_measures_what_works_and_says_why_the_others_do_not(tmp_path: Path) -> None:
    """Whether a server does not start or its application fails: that costs its own figures, and nothing is left."""
    (scenario,) = chosen(["websocket-echo-plain"])
    broken = replace(SERVERS["granian"], command=lambda launch: [sys.executable, "-c", "raise SystemExit('no such')"])
    lost = replace(SERVERS["bare"], command=lambda launch: SERVERS[BASELINE].command(replace(launch, app="no:app")))
    found = turns.measure(replace(scenario, connections=2), [lost, SERVERS[BASELINE], broken], 1, tmp_path, ())
    sample = found[BASELINE]
    assert isinstance(sample, Sample), sample
    assert sample.turns and sample.value and sample.per_cpu and sample.p50 and sample.rss
    assert sample.busy and sample.busy <= 1.05
    assert isinstance(found["granian"], ServerError) and "no such" in str(found["granian"])
    assert isinstance(found["bare"], ServerError)
    assert scenario.measure is Measure.MESSAGES and sample.value == sample.rate


def test_a_load_that_fails_costs_its_own_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Amid the turns, too; and one that is stopped there is ended."""
    (scenario,) = chosen(["websocket-echo-plain"])
    scenario = replace(scenario, connections=2)
    seats: list[turns.Seat] = []
    taking = turns.take_turns

    def killing(playing: list[turns.Seat], seconds: int) -> None:
        seats.extend(playing)
        processes.tell(playing[0].load, signal.SIGKILL)
        taking(playing, seconds)

    monkeypatch.setattr(turns, "take_turns", killing)
    servers = [SERVERS[BASELINE], replace(SERVERS["hybridworker-alone"])]
    found = turns.measure(scenario, servers, 1, tmp_path, ())
    assert isinstance(found[BASELINE], ServerError) and "load failed" in str(found[BASELINE])
    assert isinstance(found["hybridworker-alone"], Sample)

    def interrupted(playing: list[turns.Seat], seconds: int) -> None:
        seats.extend(playing)
        raise KeyboardInterrupt

    monkeypatch.setattr(turns, "take_turns", interrupted)
    with pytest.raises(KeyboardInterrupt):
        turns.measure(scenario, servers[:1], 1, tmp_path, ())
    assert len(seats) == 3
    assert all(process.returncode is not None for seat in seats for process in seat.started)
