"""
Where one worker spends its time under the load of a scenario.

py-spy where it is installed (it samples from outside and costs the worker next to nothing), else cProfile, switched on
in the worker by a gunicorn hook: that one makes calls look dearer than they are. What uvloop and httptools do in C is
counted for the Python function that called them, the loop for the one that runs it; with `native` py-spy shows the C
functions and system calls too, at the price of stopping the worker for every sample.
"""

from __future__ import annotations

import marshal
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.benchmarks import load
from tests.benchmarks.measure import launch_of
from tests.benchmarks.processes import spawned
from tests.benchmarks.scenarios import Scenario
from tests.benchmarks.servers import Running, Server, ServerError, serving

TOP = 40
HOOKS = """
import cProfile

profile = cProfile.Profile()

def post_worker_init(worker):
    profile.enable()

def worker_exit(server, worker):
    profile.disable()
    profile.dump_stats("profile.out")
"""


def py_spy() -> str | None:
    """The program beside this Python, or the one on the path."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def profile(scenario: Scenario, server: Server, seconds: int, directory: Path, core: int, native: bool = False) -> str:
    """Run the worker alone under load and return its functions, dearest first."""
    sampler = py_spy()
    extra = [] if sampler else ["--config", "../hooks.py"]
    (directory / "hooks.py").write_text(HOOKS)
    with serving(server, launch_of(scenario, *extra), directory, (core,)) as running:
        load.check(scenario, running)
        load.put_load(scenario, running, 1)
        if sampler:
            return _sampled(sampler, scenario, running, seconds, native)
        load.put_load(scenario, running, seconds)
    if not (output := running.folder / "profile.out").exists():
        raise ServerError("the worker left no profile: without py-spy only a gunicorn worker that leaves cleanly can")
    return _deterministic(output)


def _sampled(sampler: str, scenario: Scenario, running: Running, seconds: int, native: bool) -> str:
    output = running.directory / "profile.raw"
    command = [sampler, "record", "--pid", str(running.worker()), "--duration", str(seconds), "--rate", "200"]
    command += ["--format", "raw", "--output", str(output), "--native" if native else "--nonblocking"]
    with spawned(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        seen = load.put_load(scenario, running, seconds)
        _, errors = process.communicate(timeout=30)
    if not output.exists():
        raise ServerError(f"py-spy: {errors.decode(errors='replace').strip()}")
    title = f"{scenario.name}: {seen.requests / seen.seconds:,.0f} per second while sampled by py-spy"
    return "\n".join([title, *collapsed(output.read_text())])


def collapsed(text: str) -> list[str]:
    """Lines of "own share, share with callees, function" from collapsed stacks (``a;b;c COUNT``), largest own first."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if not stack:
            continue
        frames = [frame.rpartition(":")[0] + ")" if ":" in frame else frame for frame in stack.split(";")]
        own[frames[-1]] += int(count)
        for frame in set(frames):
            whole[frame] += int(count)
    total = own.total() or 1
    lines = [f"{count / total:7.1%} {whole[frame] / total:7.1%}  {frame}" for frame, count in own.most_common(TOP)]
    return ["    own   whole  function", *lines]


def _deterministic(path: Path) -> str:
    """The same from cProfile's file, read as it is: {(file, line, name): (calls, all calls, own, whole, callers)}."""
    stats = marshal.loads(path.read_bytes())
    total = sum(entry[2] for entry in stats.values()) or 1
    rows = sorted(stats.items(), key=lambda item: item[1][2], reverse=True)[:TOP]
    lines = [
        f"{entry[2] / total:7.1%} {entry[3] / total:7.1%} {entry[1]:10,}  {name} ({Path(file).name}:{line})"
        for (file, line, name), entry in rows
    ]
    return "\n".join(["    own   whole      calls  function (by cProfile, which inflates small calls)", *lines])
