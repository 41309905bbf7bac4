"""What a run of the benchmark decides: what to measure again, how long it takes, and what is stored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import __main__ as command_line
from tests.benchmarks import processes, report, revision, run, turns
from tests.benchmarks.measure import Sample, launch_of
from tests.benchmarks.progress import Progress, duration, expected
from tests.benchmarks.revision import Base, RevisionError, code_of
from tests.benchmarks.scenarios import SCENARIOS, Scenario, chosen
from tests.benchmarks.servers import BASE, BASELINE, ROOT, SERVERS, Server, ServerError, free_port
from tests.benchmarks.store import Store, Wanted, outdated
from tests.waiting import until_seen

MACHINE = {"cpu": "a CPU", "cores": 2, "server cores": [0, 1], "load core": 1, "system": "Linux", "python": "CPython"}
ENVIRONMENT = {"machine": MACHINE, "versions": {"gunicorn": "27"}}
WANTED = Wanted(rounds=3, seconds=2, code="new", environment=ENVIRONMENT)


def result(**told: Any) -> dict[str, Any]:
    """A stored result that :data:`WANTED` is content with, but for what is told."""
    samples = {"hybridworker": [{"value": 2.0, "took": 4.5}] * 3, "granian": [{"value": 1.0, "took": 5.5}] * 3}
    known = {"date": "2026-01-01", "rounds": 3, "seconds": 2, "commit": "0123456789", "code": "new"}
    return {**known, "environment": ENVIRONMENT, "samples": samples, **told}


# -- what is stored


def test_a_result_is_stored_beside_the_others_and_in_the_place_of_its_own(tmp_path: Path) -> None:
    """One file, which is whole at any time."""
    store = Store(tmp_path / "results" / "results.json")
    assert store.load() == {}
    store.save("one", result())
    store.save("two", result())
    store.save("one", result(rounds=5))
    assert {name: stored["rounds"] for name, stored in store.load().items()} == {"one": 5, "two": 3}
    assert [path.name for path in store.path.parent.iterdir()] == ["results.json"]


def test_a_comparison_has_a_file_of_its_own() -> None:
    """It is no part of what is published."""
    assert Store.beside("0123").path.parent == Store().path.parent
    assert Store.beside("0123").path != Store().path


# -- what is measured again


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({}, None),
        ({"rounds": 7, "seconds": 3}, None),
        ({"commit": "another", "date": "2025-01-01"}, None),
        ({"code": "old"}, "older than the code"),
        ({"environment": {**ENVIRONMENT, "machine": {**MACHINE, "cores": 4}}}, "from another machine"),
        ({"environment": {**ENVIRONMENT, "versions": {"gunicorn": "26"}}}, "other versions"),
        ({"rounds": 2}, "only 2 rounds of 2 s"),
        ({"seconds": 1}, "only 3 rounds of 1 s"),
        ({"samples": {"hybridworker": []}}, "without granian"),
        ({"base": {"commit": "x", "code": "base", "lacks": None}}, "beside another revision"),
    ],
)
def test_a_run_that_is_resumed_measures_what_is_missing_or_old(told: dict[str, Any], reason: str | None) -> None:
    """A commit of results or documentation makes no figure old: the code is what counts."""
    assert WANTED.missing(result(**told), ["hybridworker", "granian"]) == reason


def test_what_was_never_measured_is_missing() -> None:
    """And what failed is not: it was measured."""
    assert WANTED.missing(None, ["hybridworker"]) == "not measured yet"
    assert WANTED.missing(result(samples={"hybridworker": [{"error": "it failed"}] * 3}), ["hybridworker"]) is None


def test_a_comparison_is_resumed_with_the_same_revision_only() -> None:
    """Also where that could not take part."""
    wanted = replace(WANTED, base="base")
    assert wanted.missing(result(base={"commit": "x", "code": "base", "lacks": "no Hybrid"}), ["granian"]) is None
    assert wanted.missing(result(), ["granian"]) == "beside another revision"


def test_the_report_warns_of_figures_that_are_older_than_the_code() -> None:
    """By name, as it does of those from another machine."""
    results = {"asgi-hello": result(), "wsgi-hello": result(code="old", environment={**ENVIRONMENT, "versions": {}})}
    assert outdated(results, "new") == ["wsgi-hello"]
    short, whole = report.render(results, "new")
    line = "Older than the code of this worker, and to be measured again: wsgi-hello.\n"
    assert line in short and line in whole
    assert "From another machine or with other versions: wsgi-hello.\n" in short
    assert "lder than" not in report.render({"asgi-hello": result()}, "new")[0]


# -- the code


def test_the_code_is_the_tree_of_git(tmp_path: Path) -> None:
    """With what is not committed, and without what Python leaves behind."""

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "package"
    for name in ("a.py", "a/one.py", "a-b.py", "a/b/two.py", "py.typed"):  # git sorts "a/" behind "a-b.py"
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(name)
    (package / "a.py").chmod(0o755)
    try:
        git("init", "-q")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    git("add", ".")
    git("commit", "-qm", "first")
    assert code_of(package) == git("rev-parse", "HEAD:package")
    for left in ("__pycache__/a.pyc", "a/__pycache__/one.pyc"):
        (package / left).parent.mkdir()
        (package / left).write_text("compiled")
    assert code_of(package) == git("rev-parse", "HEAD:package")
    (package / "a" / "one.py").write_text("changed")
    assert code_of(package) != git("rev-parse", "HEAD:package")


# -- an earlier revision


def exported(tmp_path: Path, **files: str) -> Base:
    """A revision with these modules."""
    for name, text in {"__init__": "", **files}.items():
        path = tmp_path / BASELINE / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Base("0123456789", "base", replace(SERVERS[BASE], path=(tmp_path,)))


def one(name: str) -> Scenario:
    (scenario,) = chosen([name])
    return scenario


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("asgi-hello", None),
        ("shop-flask-hybrid", "no Hybrid"),
        ("http2-hello", "no HTTP/2"),
        ("http2-balance-2", "no HTTP/2"),
        ("asgi-limits", "no HYBRIDWORKER_REQUEST_TIMEOUT"),
        ("wsgi-overload", "no HYBRIDWORKER_QUEUE_TIMEOUT"),
    ],
)
def test_an_early_revision_is_left_out_where_it_cannot_run(name: str, reason: str | None, tmp_path: Path) -> None:
    """With the reason; and it comes right behind this worker where it can."""
    base = exported(tmp_path)
    assert base.lacks(one(name)) == reason
    servers, lacks = run.with_base(one(name), [SERVERS[BASELINE], SERVERS["granian"]], base)
    assert lacks == reason
    assert [server.name for server in servers] == [BASELINE, *([] if reason else [BASE]), "granian"]


def test_a_revision_with_everything_takes_part_everywhere(tmp_path: Path) -> None:
    """In every scenario of this worker."""
    variables = "REQUEST_TIMEOUT QUEUE_TIMEOUT REQUESTS_MAX LIMIT_REQUEST_BODY SLOW_REQUEST METRICS_PATH HEALTH_PATH"
    (tmp_path / BASELINE / "http2").mkdir(parents=True)
    base = exported(tmp_path, hybrid="class Hybrid:\n    pass\n", settings=variables)
    assert {scenario.name: base.lacks(scenario) for scenario in SCENARIOS if base.lacks(scenario)} == {}


def test_this_revision_lacks_nothing() -> None:
    """The signs by which a revision is judged are those of this code."""
    base = Base("0123456789", "base", replace(SERVERS[BASE], path=(ROOT,)))
    assert {scenario.name: base.lacks(scenario) for scenario in SCENARIOS if base.lacks(scenario)} == {}


def test_only_beside_this_worker_an_earlier_revision_is_measured(tmp_path: Path) -> None:
    """Nor where nobody asked for one."""
    base = exported(tmp_path)
    assert run.with_base(one("asgi-hello"), [SERVERS["granian"]], base) == ([SERVERS["granian"]], None)
    assert run.with_base(one("asgi-hello"), [SERVERS[BASELINE]], None) == ([SERVERS[BASELINE]], None)


def test_an_earlier_revision_serves_what_this_worker_does() -> None:
    """The same application with the same settings, by another package."""
    scenario = one("probe-health")
    assert replace(launch_of(scenario, server=BASE), port=1) == replace(launch_of(scenario), port=1)
    peer = launch_of(scenario, server="gunicorn-gthread")
    assert (peer.app, peer.interface, peer.settings) == (
        "tests.benchmarks.frameworks.with_django_shop:wsgi",
        "wsgi",
        (),
    )


def test_a_revision_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, with or without git."""
    with pytest.raises(RevisionError, match=r"^no-such: no such revision$|^git is not installed$"):
        Base.find("no-such")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RevisionError, match="git is not installed"):
        Base.find("HEAD")
    assert revision.current() == ""


def test_before_and_after_are_compared_within_the_rounds() -> None:
    """By the clock and by the processor, with the spread; and who could not take part is named."""
    after = [{"value": 220.0, "per_cpu": 300.0}, {"value": 110.0, "per_cpu": 330.0}, {"value": 330.0, "per_cpu": 300.0}]
    before = [{"value": 200.0, "per_cpu": 300.0}, {"value": 100.0, "per_cpu": 300.0}, {"error": "it failed"}]
    told = {"commit": "0011223344", "code": "base", "lacks": None}
    compared = result(base=told, samples={BASELINE: after, BASE: before})
    skipped = result(base={**told, "lacks": "no Hybrid"}, samples={BASELINE: after})
    text = report.comparison({"asgi-hello": compared, "hybrid-asgi-hello": skipped}, "new")
    assert "Before: revision 0011223344. After: revision 0123456789." in text
    (row,) = (line for line in text.splitlines() if line.startswith("asgi-hello, requests/s"))
    assert "1.10 (1.10-1.10)" in row and "1.05 (1.00-1.10)" in row
    assert "* hybrid-asgi-hello: no Hybrid" in text
    assert "* asgi-hello: hybridworker-base failed in 1 of 3 rounds: it failed" in text


# -- how long it takes


def test_a_measurement_takes_as_long_as_it_did_but_for_the_load() -> None:
    """By server; what was not measured yet is guessed."""
    scenario = one("slow-clients")
    stored = {"slow-clients": result(), "asgi-hello": result()}
    assert expected(scenario, "granian", 2, stored) == 5.5
    assert expected(scenario, "granian", 10, stored) == 13.5
    assert 3 < expected(scenario, "hypercorn", 2, stored) < 8
    assert expected(one("asgi-hello"), "granian", 2, stored) == expected(one("asgi-hello"), "granian", 2, {}), (
        "how long a server took alone says nothing of its share of a round with turns"
    )
    stored["asgi-hello"]["samples"]["granian"] = [{"value": 1.0, "took": 3.0, "turns": 13}]
    assert expected(one("asgi-hello"), "granian", 3, stored) == 4.0
    assert expected(one("startup"), "granian", 2, {}) == expected(one("startup"), "granian", 60, {})


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (80, "80 s"), (600, "10 min"), (3_725, "1 h 02 min")])
def test_durations_as_a_person_says_them(seconds: float, text: str) -> None:
    """No more precise than they are."""
    assert duration(seconds) == text


def test_progress_says_how_much_is_left_and_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes twice as long as expected takes twice as long for the rest."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress({"one": [100.0] * 3, "two": [100.0] * 3})
    assert progress.plan(3, 2).startswith("2 scenarios, 3 rounds of 2 s: about 10 min, until ")
    assert progress.line("one") == "[1 of 2, 10 min left]"
    for _ in range(3):
        now[0] += 200
        progress.advance(100)
    assert progress.line("two") == "[2 of 2, 10 min left]"
    for _ in range(3):
        now[0] += 200
        progress.advance(100)
    assert progress.left() == 0


# -- a run, without servers


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str]]:
    """What a run measures, in the order in which it does, on a machine that is quick; gunicorn-gthread fails."""
    calls: list[tuple[str, str]] = []

    def measure(scenario: Scenario, server: Server, seconds: int, directory: Path, cores: Any) -> Sample:
        calls.append((scenario.name, server.name))
        if server.name == "gunicorn-gthread":
            raise ServerError("it failed")
        if (scenario.name, server.name) == ("flask", "granian"):
            raise LookupError("nobody has thought of it")
        return Sample(value=float(len(calls)))

    def together(scenario: Scenario, servers: Any, *arguments: Any) -> dict[str, Sample | Exception]:
        found: dict[str, Sample | Exception] = {}
        for server in servers:
            try:
                found[server.name] = vars(run)["measure"](scenario, server, *arguments)
            except Exception as exc:
                found[server.name] = exc
        return found

    @contextmanager
    def workplace(scenarios: Any) -> Any:
        yield run.Place(tmp_path, (0, 1), 1)

    monkeypatch.setattr(run, "measure", measure)
    monkeypatch.setattr(turns, "measure", together)
    monkeypatch.setattr(run, "workplace", workplace)
    monkeypatch.setattr(run, "version", lambda package: "1" if package != "hypercorn" else None)
    return calls


def store_in(tmp_path: Path) -> Store:
    return Store(tmp_path / "results.json")


def test_rounds_are_interleaved_and_begin_with_another_server(
    measured: list[tuple[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And one that fails aborts nothing; before it begins the run says how long it takes."""
    run.run(chosen(["wsgi-echo-10k", "flask"]), run.Options(rounds=2, seconds=1), store_in(tmp_path))
    names = ["hybridworker", "gunicorn-gthread", "granian"]
    order = [*names, *names[1:], names[0]]
    assert measured == [(scenario, server) for scenario in ("wsgi-echo-10k", "flask") for server in order]
    stored = store_in(tmp_path).load()
    assert [sample["error"] for sample in stored["flask"]["samples"]["gunicorn-gthread"]] == ["it failed"] * 2
    assert stored["flask"]["samples"]["granian"][0]["error"] == "LookupError('nobody has thought of it')"
    assert stored["flask"]["code"] == code_of()
    lines = capsys.readouterr().err.splitlines()
    assert "hypercorn is left out: hypercorn is not installed" in lines
    plan = next(number for number, line in enumerate(lines) if line.startswith("2 scenarios, 2 rounds of 1 s: about"))
    assert (
        lines[plan + 1].startswith("[1 of 2, ") and "wsgi-echo-10k, round 1 of 2, hybridworker: 1.0" in lines[plan + 1]
    )


def test_a_run_that_was_stopped_is_resumed(
    measured: list[tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was complete is there and stays, the rest is measured; then nothing is left to do."""
    options = run.Options(rounds=1, seconds=1, resume=True)
    scenarios = chosen(["wsgi-get-10k", "wsgi-echo-10k", "flask"])
    quick = vars(run)["measure"]

    def stopped(scenario: Scenario, *arguments: Any) -> Sample:
        if scenario.name == "wsgi-echo-10k":
            raise KeyboardInterrupt
        return quick(scenario, *arguments)  # type: ignore[no-any-return]

    monkeypatch.setattr(run, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.run(scenarios, options, store_in(tmp_path))
    assert list(store_in(tmp_path).load()) == ["wsgi-get-10k"]
    monkeypatch.setattr(run, "measure", quick)
    measured.clear()
    run.run(scenarios, options, store_in(tmp_path))
    assert {name for name, _ in measured} == {"wsgi-echo-10k", "flask"}
    assert "wsgi-get-10k: kept" in capsys.readouterr().err
    measured.clear()
    run.run(scenarios, options, store_in(tmp_path))
    assert measured == []
    assert "nothing is to be measured" in capsys.readouterr().err


def test_a_round_that_fails_as_a_whole_costs_no_other(
    measured: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor another scenario."""
    together = turns.measure

    def failing(scenario: Scenario, *arguments: Any) -> Any:
        if scenario.name == "asgi-close":
            raise OSError("no more files")
        return together(scenario, *arguments)

    monkeypatch.setattr(turns, "measure", failing)
    run.run(chosen(["asgi-close", "asgi-tls"]), run.Options(rounds=1, seconds=1, names=(BASELINE,)), store_in(tmp_path))
    stored = store_in(tmp_path).load()
    assert stored["asgi-close"]["samples"][BASELINE][0]["error"] == "OSError('no more files')"
    assert stored["asgi-tls"]["samples"][BASELINE][0]["value"] == 1.0


def test_code_that_changes_meanwhile_has_no_figures(
    measured: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is resumed measures again what may be of either."""
    codes = iter(["one", "one", "two"])
    monkeypatch.setattr(run, "code_of", lambda: next(codes))
    options = run.Options(rounds=1, seconds=1, names=(BASELINE,))
    run.run(chosen(["asgi-close", "asgi-tls"]), options, store_in(tmp_path))
    assert [stored["code"] for stored in store_in(tmp_path).load().values()] == ["one", "changed meanwhile"]


def test_a_run_with_a_base_stores_what_could_not_take_part(
    measured: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier revision is measured in the same rounds where it can run."""
    base = exported(tmp_path / "tree")
    monkeypatch.setattr(Base, "find", classmethod(lambda cls, name: base))
    monkeypatch.setattr(Base, "exported", lambda self, directory: self)
    options = run.Options(rounds=1, seconds=1, names=(BASELINE,), base="v1")
    run.run(chosen(["asgi-close", "asgi-limits"]), options, store_in(tmp_path))
    assert measured == [("asgi-close", BASELINE), ("asgi-close", BASE)], "alone it would be compared with nobody"
    stored = store_in(tmp_path).load()
    assert stored["asgi-close"]["base"] == {"commit": "0123456789", "code": "base", "lacks": None}
    assert stored["asgi-limits"]["base"]["lacks"] == "no HYBRIDWORKER_REQUEST_TIMEOUT"
    measured.clear()
    run.run(chosen(["asgi-close", "asgi-limits"]), replace(options, resume=True), store_in(tmp_path))
    assert measured == []


def test_the_report_of_a_comparison_is_a_page_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And a warning says what is older than the code."""
    store = Store(tmp_path / "base-0011.json")
    told = {"commit": "0011223344", "code": "base", "lacks": None}
    store.save("asgi-hello", result(base=told, samples={BASELINE: [{"value": 2}], BASE: [{"value": 1}]}))
    command_line.write_report(store)
    output = capsys.readouterr()
    assert "2.00 (2.00-2.00)" in output.out
    assert "older than the code: asgi-hello" in output.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base-0011.json", "base-0011.rst"]


# -- processes


def test_what_was_spawned_ends_with_all_that_it_has_started() -> None:
    """Also where the block is left by an exception."""
    code = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    code += "print(p.pid, flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        with processes.spawned([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            raise KeyboardInterrupt
    assert process.returncode is not None
    deadline = time.monotonic() + 5
    while (fields := processes._stat(child)) and fields[0] != "Z":
        assert time.monotonic() < deadline, "the child of the process lives"
        time.sleep(0.01)


def test_a_process_that_is_stopped_can_be_ended() -> None:
    """Kindly: it goes on with the signal, and leaves as it wants to."""
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *call: sys.exit(3)); "
    code += "print('ready', flush=True); time.sleep(60)"
    with processes.spawned([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        processes.tell(process, signal.SIGSTOP)
        until_seen(lambda: processes.state(process) == "T")
    assert process.returncode == 3


def test_processor_time_is_exact_and_a_process_that_is_gone_has_none() -> None:
    """To less than a hundredth of a second, which is what /proc counts in."""
    before = time.process_time()
    found = processes.cpu_seconds([os.getpid()])
    assert before <= found <= time.process_time()
    with processes.spawned([sys.executable, "-c", ""]) as process:
        process.wait()
    assert processes.cpu_seconds([process.pid]) == 0


def test_a_port_is_not_given_twice() -> None:
    """Servers that are started side by side do not listen yet when the next one is told its port."""
    ports = [free_port() for _ in range(100)]
    assert len(set(ports)) == 100


def test_a_signal_waits_for_the_owner_of_a_new_process() -> None:
    """It comes, but not between the start of a process and the moment in which somebody is there to end it."""
    order = []
    handler = signal.signal(signal.SIGTERM, lambda *call: order.append("signal"))
    try:
        with processes.postponed():
            signal.raise_signal(signal.SIGTERM)
            order.append("started")
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert order == ["started", "signal"]


def test_the_results_that_are_stored_name_scenarios_that_are_there() -> None:
    """What nobody can measure again would stay for ever."""
    assert set(Store().load()) <= {scenario.name for scenario in SCENARIOS}
