"""
A run: what is to be measured, in interleaved rounds, and stored scenario by scenario.

Invariant: a server that fails costs its own figures of a scenario and nothing else; a run that is stopped keeps what
was complete and leaves no process behind.
"""

from __future__ import annotations

import compileall
import datetime
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import h2load, report, turns
from tests.benchmarks.measure import Sample, measure, prepare, to_json
from tests.benchmarks.progress import Progress, expected
from tests.benchmarks.revision import Base, code_of, current
from tests.benchmarks.scenarios import Scenario
from tests.benchmarks.servers import BASE, BASELINE, ROOT, SERVERS, Server, ServerError, version
from tests.benchmarks.store import Result, Store, Wanted


class UsageError(Exception):
    """Something that the user has to change."""


def say(line: str) -> None:
    """Progress and warnings; the tables go to standard output."""
    print(line, file=sys.stderr, flush=True)


# -- what is needed


def with_load(scenarios: Sequence[Scenario]) -> list[Scenario]:
    """Those scenarios whose load can be made here; a line on the others. :class:`UsageError` where none is left."""
    if shutil.which("h2load"):
        return list(scenarios)
    left = [scenario for scenario in scenarios if scenario.client != "h2load"]
    if len(left) < len(scenarios):
        names = ", ".join(scenario.name for scenario in scenarios if scenario not in left)
        line = f"{names}: the load comes from h2load, which is not installed ({h2load.PACKAGE})"
        if not left:
            raise UsageError(line)
        say(f"left out are {line}")
    return left


@dataclass(frozen=True, slots=True)
class Place:
    """Where measurements are made: a directory of their own, and the cores of the server and of the load."""

    directory: Path
    server_cores: Sequence[int]
    load_core: int

    @classmethod
    def cores(cls, available: Sequence[int]) -> tuple[Sequence[int], int]:
        """Two cores for the server, the first of which is enough for most scenarios; the load never has the first."""
        return available[:2], available[min(2, len(available) - 1)]


@contextmanager
def workplace(scenarios: Sequence[Scenario]) -> Iterator[Place]:
    """Check what is needed, take the load's core, and give a directory that is removed at the end."""
    if not hasattr(os, "sched_setaffinity") or not Path("/proc/self/smaps_rollup").exists():
        raise UsageError("the benchmark needs Linux: it pins processes to cores and reads /proc")
    if any(scenario.client in ("wrk", "overload") for scenario in scenarios) and not shutil.which("wrk"):
        raise UsageError("the load comes from wrk, which is not installed (Debian and Ubuntu: apt install wrk)")
    if any(scenario.tls for scenario in scenarios) and not shutil.which("openssl"):
        raise UsageError("a TLS scenario needs the openssl program for its certificate (apt install openssl)")
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise UsageError("the benchmark needs two cores, one for the server and one for the load")
    needed = 2 * max(scenario.connections * max(1, scenario.streams) for scenario in scenarios) + 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UsageError(f"{needed} open files are needed and {hard} allowed (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    if os.getloadavg()[0] > 0.5:
        say("warning: something else is running on this machine; wait, or trust the ratios only")
    server_cores, load_core = Place.cores(available)
    os.sched_setaffinity(0, {load_core})
    try:
        # As every package that pip installed is: no start is to be measured with the compiler.
        compileall.compile_dir(ROOT / BASELINE, quiet=1)
        with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
            try:
                prepare(Path(directory), scenarios)
            except ServerError as exc:
                say(f"warning: {exc}")  # what needs it will fail, and nothing else
            yield Place(Path(directory), server_cores, load_core)
    finally:
        os.sched_setaffinity(0, available)


# -- what is measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for; no ``names`` means all servers that are installed."""

    rounds: int
    seconds: int
    names: Sequence[str] | None = None
    base: str | None = None
    resume: bool = False


def participants(scenario: Scenario, names: Sequence[str] | None) -> list[Server]:
    """The servers of a scenario that were asked for and are installed."""
    servers = [SERVERS[name] for name in scenario.servers if names is None or name in names]
    return [server for server in servers if version(server.package) is not None]


def with_base(scenario: Scenario, servers: Sequence[Server], base: Base | None) -> tuple[list[Server], str | None]:
    """
    The servers, this worker's earlier revision behind it; or the reason why that one cannot take part.

    Without it this worker alone has nothing to be compared with: then there are no servers.
    """
    if base is None or BASELINE not in [server.name for server in servers]:
        return list(servers), None
    if reason := base.lacks(scenario):
        return list(servers) if len(servers) > 1 else [], reason
    return [servers[0], base.server, *servers[1:]], None


def run(scenarios: Sequence[Scenario], options: Options, store: Store | None = None) -> Store:
    """Measure, store each scenario as soon as it is complete, and return where. ``store`` is for other files."""
    scenarios = with_load(scenarios)
    for missing in (server for server in SERVERS.values() if version(server.package) is None):
        say(f"{missing.name} is left out: {missing.package} is not installed")
    base = Base.find(options.base) if options.base else None
    if store is None:
        store = Store.beside(base.commit) if base else Store()
    with workplace(scenarios) as place:
        if base is not None:
            base = base.exported(place.directory / "base")
            compileall.compile_dir(place.directory / "base", quiet=1)
        Run(options, place, base, store).all(scenarios)
    return store


class Run:
    """One run, from its plan to its last scenario."""

    def __init__(self, options: Options, place: Place, base: Base | None, store: Store) -> None:
        self.options = options
        self.place = place
        self.base = base
        self.store = store
        self.commit = current()
        self.wanted = Wanted(
            rounds=options.rounds,
            seconds=options.seconds,
            code=code_of(),
            environment=report.environment(place.server_cores, place.load_core),
            base=base.code if base else None,
        )

    def all(self, scenarios: Sequence[Scenario]) -> None:
        """Say how long it takes, and measure what is wanted."""
        stored = self.store.load()
        possible = [scenario for scenario in scenarios if participants(scenario, self.options.names)]
        wanted = [scenario for scenario in possible if self._is_wanted(scenario, stored)]
        if not wanted:
            return say("nothing is to be measured: all that was asked for is there, and as new as the code")
        progress = Progress({scenario.name: self._expected(scenario, stored) for scenario in wanted})
        say(progress.plan(self.options.rounds, self.options.seconds))
        for scenario in wanted:
            result = self._measured(scenario, progress, stored)
            self.store.save(scenario.name, result)
            if result["samples"]:
                print(report.details(scenario, result), end="\n\n", flush=True)

    def _servers(self, scenario: Scenario) -> tuple[list[Server], str | None]:
        """Who takes part in a scenario, and why the earlier revision does not."""
        return with_base(scenario, participants(scenario, self.options.names), self.base)

    def _is_wanted(self, scenario: Scenario, stored: Mapping[str, Result]) -> bool:
        """All is, but for what a run that is resumed finds complete."""
        if not self.options.resume:
            return True
        names = [server.name for server in self._servers(scenario)[0]]
        reason = self.wanted.missing(stored.get(scenario.name), names)
        say(f"{scenario.name}: {reason or 'kept'}")
        return reason is not None

    def _expected(self, scenario: Scenario, stored: Mapping[str, Result]) -> list[float]:
        """Seconds of each measurement of a scenario."""
        servers, _ = self._servers(scenario)
        of_servers = [expected(scenario, server.name, self.options.seconds, stored) for server in servers]
        return of_servers * self.options.rounds

    def _measured(self, scenario: Scenario, progress: Progress, stored: Mapping[str, Result]) -> Result:
        """All rounds of a scenario, each beginning with another server."""
        servers, lacks = self._servers(scenario)
        if lacks:
            say(f"{scenario.name}: {BASE} is left out: {lacks}")
        samples: dict[str, list[dict[str, Any]]] = {server.name: [] for server in servers}
        for number in range(self.options.rounds if servers else 0):
            first = number % len(servers)
            for server, sample in self._round(scenario, servers[first:] + servers[:first]):
                samples[server.name].append(sample)
                progress.advance(expected(scenario, server.name, self.options.seconds, stored))
                value = sample.get("error") or f"{report.number(sample['value'])} {scenario.measure.value}"
                where = f"{scenario.name}, round {number + 1} of {self.options.rounds}, {server.name}"
                say(f"{progress.line(scenario.name)} {where}: {value}")
        if (code := code_of()) != self.wanted.code:
            code = "changed meanwhile"
            say(f"warning: {scenario.name}: the code has changed meanwhile, this is to be measured again")
        result: Result = {
            "date": f"{datetime.date.today()}",
            "rounds": self.options.rounds,
            "seconds": self.options.seconds,
            "commit": self.commit,
            "code": code,
            "environment": self.wanted.environment,
            "samples": samples,
        }
        if self.base is not None:
            result["base"] = {"commit": self.base.commit, "code": self.base.code, "lacks": lacks}
        return result

    def _round(self, scenario: Scenario, servers: Sequence[Server]) -> Iterator[tuple[Server, dict[str, Any]]]:
        """One measurement of each, or why there is none, and the seconds that it took."""
        arguments = (self.options.seconds, self.place.directory, self.place.server_cores)
        for together in [servers] if scenario.takes_turns else [[server] for server in servers]:
            begun = time.monotonic()
            found: Mapping[str, Sample | Exception]
            try:
                if scenario.takes_turns:
                    found = turns.measure(scenario, together, *arguments)
                else:
                    found = {together[0].name: measure(scenario, together[0], *arguments)}
            except Exception as exc:  # whatever goes wrong costs these figures, and not an hour of others
                found = {server.name: exc for server in together}
            took = round((time.monotonic() - begun) / len(together), 2)
            for server in together:
                yield server, {**_stored(found[server.name]), "took": took}


def _stored(found: Sample | Exception) -> dict[str, Any]:
    """A measurement, or why there is none."""
    if isinstance(found, Sample):
        return to_json(found)
    return {"error": str(found) if isinstance(found, ServerError) else repr(found)}
