"""The benchmark's arithmetic and tables, without a server or a clock."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.benchmarks import figures, h2load, http2, overview, report
from tests.benchmarks.chart import chart
from tests.benchmarks.measure import Sample, launch_of, to_json
from tests.benchmarks.profile import collapsed
from tests.benchmarks.revision import code_of
from tests.benchmarks.run import UsageError, with_load
from tests.benchmarks.scenarios import GROUP, SCENARIOS, Measure, Scenario, chosen
from tests.benchmarks.servers import SERVERS, Launch


def rounds(*values: float | None) -> list[dict[str, Any]]:
    """Samples of one server, one per round; None stands for a round that failed."""
    return [{"error": "it failed"} if value is None else {"value": value} for value in values]


def results(samples: Mapping[str, Any], name: str = "asgi-hello") -> dict[str, Any]:
    """A stored result, of the code named "new"."""
    machine = {
        "cpu": "a CPU",
        "cores": 2,
        "server cores": [0, 1],
        "load core": 1,
        "system": "Linux 6",
        "python": "CPython",
    }
    environment = {"machine": machine, "versions": {"gunicorn": "27"}}
    told = {"date": "2026-01-01", "rounds": 3, "seconds": 1, "commit": "0123456789", "code": "new"}
    return {name: {**told, "environment": environment, "samples": samples}}


# -- ratios


def test_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_the_medians() -> None:
    """A round is compared with itself: a slow moment of the machine that hits both servers changes nothing."""
    found = figures.ratio(rounds(100, 10, 50), rounds(50, 5, 50))
    assert found == figures.Ratio(2.0, 1.0, 2.0)
    assert str(found) == "2.00 (1.00-2.00)"


def test_ratio_leaves_out_a_round_in_which_either_server_failed() -> None:
    """A failed round has no value, and its partner is not compared with that of another round."""
    assert figures.ratio(rounds(100, None, 30), rounds(50, 1, None)) == figures.Ratio(2.0, 2.0, 2.0)


def test_ratio_of_less_is_better_is_above_one_when_ours_is_smaller() -> None:
    """Above 1 always means that this worker is better."""
    assert figures.ratio(rounds(5), rounds(10), more_is_better=False) == figures.Ratio(2.0, 2.0, 2.0)


@pytest.mark.parametrize("theirs", [[], rounds(None), rounds(0)])
def test_ratio_without_a_common_round_is_none(theirs: list[dict[str, Any]]) -> None:
    """No number is made up where nothing was measured."""
    assert figures.ratio(rounds(1), theirs) is None


def test_median_ignores_failed_rounds() -> None:
    """The median is that of the rounds that gave a value."""
    assert figures.median(rounds(1, None, 5, 3)) == 3
    assert figures.median(rounds(None)) is None


# -- bars


def bar(**options: Any) -> Scenario:
    return Scenario(name="x", title="X", app="m:a", **options)


@pytest.mark.parametrize(
    ("ours", "expected"),
    [(150, "at least 1.5: met"), (149, "at least 1.5: NOT MET")],
)
def test_a_bar_is_met_from_its_own_value_on(ours: float, expected: str) -> None:
    """ "At least 1.5 times" includes 1.5."""
    samples = {"hybridworker": rounds(ours), "granian": rounds(100)}
    assert figures.verdict(bar(bars={"granian": 1.5}), samples, "granian").endswith(f"), {expected}")


def test_a_server_without_a_bar_or_without_a_value_has_no_verdict() -> None:
    """Silence, neither success nor failure."""
    samples = {"hybridworker": rounds(1), "granian": rounds(1), "hypercorn": rounds(None)}
    scenario = bar(bars={"hypercorn": 1.0})
    assert figures.verdict(scenario, samples, "granian") == ""
    assert figures.verdict(scenario, samples, "hypercorn") == ""


@pytest.mark.parametrize(("ours", "expected"), [(4.9, "4.90, under 5: met"), (5.0, "5.00, under 5: NOT MET")])
def test_a_limit_bounds_the_own_value(ours: float, expected: str) -> None:
    """ "Under 5 KB" does not include 5."""
    assert figures.verdict(bar(limit=5.0), {"hybridworker": rounds(ours)}, "hybridworker") == expected


def test_linearity_compares_the_ratios_to_the_ceiling() -> None:
    """Least and greatest ratio to bare, over all three numbers of connections or not at all."""
    counts = [scenario.name for scenario in SCENARIOS if scenario.name.startswith("connections-")]
    assert len(counts) == 3
    measured = {
        name: {"samples": {"hybridworker": rounds(ours), "bare": rounds(100)}}
        for name, ours in zip(counts, (80, 88, 84), strict=True)
    }
    assert "0.80, 0.88, 0.84; 10% apart" in figures.linearity(measured)
    del measured[counts[0]]
    assert figures.linearity(measured) == ""


# -- results and tables


def test_a_sample_is_stored_without_what_was_not_measured() -> None:
    """Absent and zero are different things."""
    assert to_json(Sample(value=1.0, busy=0.0)) == {"value": 1.0, "busy": 0.0}


def test_every_cell_of_a_table_fits_its_column_and_no_first_cell_is_empty() -> None:
    """docutils reads a row with an empty first cell as a continuation of the row above."""
    lines = report.table(["a", "long title"], [["", "1"], ["longer cell", ""]]).splitlines()
    assert lines[0] == lines[2] == lines[-1] == "===========  =========="
    assert lines[1] == "a            long title"
    assert lines[3] == "\\            1"
    assert lines[4] == "longer cell  \\"


def test_the_page_shows_ratio_spread_and_the_reason_of_a_failure() -> None:
    """One row per server in its fixed order, failures with their first reason below; bars are no reader's business."""
    measured = results({"granian": rounds(None, None), "hybridworker": rounds(300, 320), "bare": rounds(400, 400)})
    short, whole = report.render(measured, "new")
    assert "a CPU (2 cores" in short and "gunicorn 27" in short
    assert "0.78" in short
    reason = "granian failed in 2 of 2 rounds: it failed"
    assert f"* Hello: {reason}" in short, "a table explains what it calls failed"
    assert "0.78 (0.75-0.80)" in whole and "310 (300-320)" in whole and f"\n* {reason}" in whole
    assert "met" not in whole.lower().split() and " bar " not in whole
    assert whole.index("\nhybridworker ") < whole.index("\nbare ") < whole.index("\ngranian ")


def test_a_server_that_failed_in_some_rounds_is_explained_only_in_its_details() -> None:
    """It has a figure in the overview."""
    short, whole = report.render(results({"hybridworker": rounds(1, 1), "granian": rounds(1, None)}), "new")
    assert "failed" not in short
    assert "* granian failed in 1 of 2 rounds" in whole


def test_latencies_and_memory_stand_as_they_are_in_tables_of_their_own() -> None:
    """In ms and MiB, of each server; and what else a load has shown has its row, too."""
    probe = [{"value": 12.3, "p99": 12.3, "p50": 4.5, "pages": 77.0}]
    measured = results({"hybridworker": probe, "gunicorn-gthread": rounds(99)}, "probe-health")
    measured |= results({"hybridworker": rounds(29.6), "granian": rounds(28)}, "memory-rest")
    measured |= results({"hybridworker": [{"value": 160, "p99": 1_000, "max": 2_000}]}, "wsgi-overload")
    short, whole = report.render(measured, "new")
    latencies, memory = short.split("\nMemory  ")
    cells = {row.split("  ")[0]: row.split()[-2:] for row in latencies.splitlines() if ", p" in row}
    assert cells == {
        "Health, 8 threads busy with Django, p99": ["12.3", "99.0"],
        "Health, 8 threads busy with Django, p50": ["4.5", "\\"],
        "4 times too many calls of 50 ms, p99": ["1,000", "\\"],
    }
    assert "to recover" in latencies and "29.6" in memory
    assert "Pages beside, per second: hybridworker 77.0." in whole


def test_the_pinning_of_several_workers_is_said() -> None:
    """Where two workers have both cores, the load shares one of them, unless there is a third."""
    one = results({"hybridworker": rounds(1)}, "close")
    assert "2 workers on one core" in report.render(one, "new")[1]
    two = results({"hybridworker": rounds(1)}, "shop-flask-2")
    assert "2 workers on 2 cores, the load on the second of them" in report.render(two, "new")[1]
    two["shop-flask-2"]["environment"]["machine"]["load core"] = 2
    assert "2 workers on 2 cores, the load on a third" in report.render(two, "new")[1]


def test_the_shares_of_a_burst_stand_under_the_table() -> None:
    """The least and the greatest of all rounds, of every server that has some."""
    burst = [{"value": 1.0, "least": 31, "most": 33}, {"value": 1.0, "least": 32, "most": 32}]
    measured = results({"hybridworker": burst, "uvicorn-worker": rounds(None)}, "burst-64-2")
    _, whole = report.render(measured, "new")
    assert "Least to greatest share of a worker: hybridworker 31-33.\n" in whole
    assert "share of a worker" not in report.render(results({"hybridworker": rounds(1)}), "new")[1]


def test_the_summary_replaces_what_is_between_the_markers_and_nothing_else() -> None:
    """Twice the same summary gives the same page."""
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.insert(page, "new\n")
    assert once == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    assert report.insert(once, "new\n") == once
    with pytest.raises(ValueError, match="needs the comments"):
        report.insert("no markers", "new")


def test_the_chart_is_written_and_the_same_for_the_same_results(tmp_path: Path) -> None:
    """A chart under version control changes only when its numbers do."""
    pytest.importorskip("matplotlib", reason="the chart needs matplotlib")
    measured = results({"hybridworker": rounds(300), "granian": rounds(200)})
    for name in ("one.svg", "two.svg"):
        assert chart(measured, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert not chart(results({"granian": rounds(200)}), tmp_path / "none.svg")


# -- records


def test_scenarios_have_names_of_their_own_and_known_servers() -> None:
    """A bar or a server that is spelt wrong would silently never be measured."""
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    for scenario in SCENARIOS:
        assert set(scenario.servers) <= set(SERVERS), scenario.name
        assert set(scenario.bars) <= set(scenario.servers), scenario.name


def test_chosen_takes_shell_patterns_in_the_order_of_the_table() -> None:
    """No pattern means all; one that matches nothing is an error that lists the names."""
    assert chosen([]) == list(SCENARIOS)
    assert [scenario.name for scenario in chosen(["wsgi-hello", "asgi-hell?"])] == ["asgi-hello", "wsgi-hello"]
    with pytest.raises(ValueError, match="asgi-hello"):
        chosen(["asgi-hello", "nonsense"])


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
def test_every_server_is_told_its_port_and_its_application(server: Any) -> None:
    """And never more than one worker, unless the scenario is about several."""
    launch = Launch(app="module:app", interface="wsgi", port=18123, threads=8)
    command = server.command(launch)
    assert any(part.endswith("module:app") for part in command)
    assert any(part.endswith("18123") for part in command)
    if "--workers" in command:
        assert command[command.index("--workers") + 1] == "1"


@pytest.mark.parametrize("name", GROUP)
def test_the_servers_of_a_group_are_told_how_many_workers(name: str) -> None:
    """The scenarios with several compare nobody who would start one."""
    command = SERVERS[name].command(Launch(app="module:app", interface="asgi", port=18123, workers=4))
    assert command[command.index("--workers") + 1] == "4"


def test_units_say_which_direction_is_better() -> None:
    """Rates are the more the better, everything else the less."""
    assert {measure for measure in Measure if measure.more_is_better} == {
        Measure.RATE,
        Measure.MESSAGES,
        Measure.GOODPUT,
    }


def test_collapsed_stacks_count_own_and_whole_time_of_a_function_once() -> None:
    """Lines of one function are one function, and recursion counts once in "whole"."""
    lines = collapsed("run (a.py:1);f (a.py:2);f (a.py:3) 3\nrun (a.py:1);f (a.py:9) 1\n 5\n")
    assert lines[1:] == [" 100.0%  100.0%  f (a.py)"]


def test_stored_results_can_be_rendered() -> None:
    """What lies in the results folder belongs to this version of the report."""
    path = Path(report.__file__).parent / "results" / "results.json"
    if not path.exists():
        pytest.skip("no results are stored")
    stored = json.loads(path.read_text())["scenarios"]
    short, whole = report.render(stored, code_of())
    assert next(iter(stored.values()))["environment"]["machine"]["python"] in short
    assert all(f"``{name}``" in whole for name in stored)


# -- HTTP/2

PRINTED = """\
starting benchmark...
Main benchmark duration is started for thread #0.
finished in 3.00s, 20123.67 req/s, 1.11MB/s
requests: 60371 total, 60499 started, 60371 done, 60371 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 60380 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 3.34MB (3500123) total, 884.34KB (905560) headers (space savings 88.28%), 766.43KB (784823) data
                     min         max         mean         sd        +/- sd
time for request:      105us      7.12ms      1.21ms       611us    71.67%
"""


def test_what_h2load_prints() -> None:
    """Requests, bytes of content, and errors of any kind; it has no percentiles."""
    found = h2load.read(PRINTED, 3)
    assert (found["requests"], found["seconds"], found["bytes"], found["p99"]) == (60371, 3, 784823, None)
    assert not any(found["errors"].values())
    worse = PRINTED.replace("0 failed, 0 errored", "2 failed, 3 errored").replace("0 4xx, 0 5xx", "4 4xx, 5 5xx")
    assert h2load.read(worse, 3)["errors"] == {"failed": 2, "errored": 3, "timeout": 0, "status": 9}
    with pytest.raises(ValueError, match="no results"):
        h2load.read("could not connect", 3)


def test_without_h2load_its_scenarios_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a line that names them and says what to install; where nothing else was asked for it is an error."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [scenario.name for scenario in with_load(chosen(["http2-hello", "asgi-hello"]))] == ["asgi-hello"]
    line = "http2-hello: the load comes from h2load, which is not installed (Debian and Ubuntu: apt install nghttp2"
    assert f"left out are {line}" in capsys.readouterr().err
    with pytest.raises(UsageError, match=re.escape(line)):
        with_load(chosen(["http2-hello"]))


def test_http1_has_a_connection_for_each_stream() -> None:
    """As many requests are under way."""
    assert h2load.command("http://x/", 8, 16, 3)[3:7] == ["--clients", "8", "--max-concurrent-streams", "16"]
    command = h2load.command("http://x/", 128, 0, 3, fields=("a: b",), targets=Path("targets"))
    assert command[3:6] == ["--clients", "128", "--h1"]
    assert command[-6:] == ["--header", "a: b", "--base-uri", "http://x/", "--input-file", "targets"]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("name", ["gunicorn-asgi", "gunicorn-gthread", "granian", "hypercorn", "hybridworker"])
def test_every_peer_is_told_to_speak_http2(name: str, tls: bool) -> None:
    """And speaks HTTP/1.1 else."""
    launch = Launch(app="module:app", interface="asgi", port=18123, tls=tls, http2=True)
    assert SERVERS[name].command(launch) != SERVERS[name].command(replace(launch, http2=False))


@pytest.mark.parametrize("server", ["hybridworker", "hybridworker-http1"])
def test_who_speaks_http2(server: str) -> None:
    """All servers of a scenario of HTTP/2, but for the one that shows HTTP/1.1 beside."""
    (scenario,) = chosen(["http2-hello"])
    assert launch_of(scenario, server=server).http2 is (server == "hybridworker")
    assert not launch_of(chosen(["asgi-hello"])[0]).http2


def test_processor_time_has_a_table_of_its_own() -> None:
    """A smaller time is better, and the ratio says how many times."""
    measured = results({"hybridworker": rounds(10.4), "granian": rounds(13.8)}, "http2-hello")
    short, whole = report.render(measured, "new")
    assert "HTTP/2, times better than" in short
    assert "ASGI hello, 8 x 16, us of processor" in short
    assert "1.33" in short
    assert "8 connections of 16 streams" in whole


def test_targets_do_not_repeat(tmp_path: Path) -> None:
    """Each has a query of its own, of 60 characters."""
    h2load.write_targets(tmp_path)
    lines = (tmp_path / h2load.TARGET_FILE).read_text().splitlines()
    assert len(set(lines)) == len(lines) == h2load.TARGETS
    assert {len(line.partition("?")[2]) for line in lines} == {h2load.QUERY}


def test_a_client_of_http2() -> None:
    """It answers SETTINGS and PING, joins the DATA of a stream, and knows its end."""
    answers = http2.Answers()
    data = http2.frame(4, 0, 0) + http2.frame(1, 4, 1, b"\x88") + http2.frame(0, 0, 1, b"a")
    assert answers.feed(data[:20]) == http2.frame(4, 1, 0)
    assert answers.feed(data[20:]) == b""
    assert answers.ended == set()
    assert answers.feed(http2.frame(6, 0, 0, bytes(8)) + http2.frame(0, 1, 1, b"b")) == http2.frame(6, 1, 0, bytes(8))
    assert (answers.ended, answers.bodies) == ({1}, {1: b"ab"})
    with pytest.raises(ConnectionError, match="GOAWAY"):
        answers.feed(http2.frame(7, 0, 0, bytes(8)))


# -- the overview


def test_the_overview_shows_throughput_as_a_share_of_this_workers() -> None:
    """Rows in a fixed order, without those that nobody measured beside it."""
    measured = results({"hybridworker": rounds(300), "granian": rounds(150), "hypercorn": rounds(30)}, "shop-flask")
    measured |= results({"hybridworker": rounds(100), "uvicorn-worker": rounds(50)}, "shop-fastapi")
    measured |= results({"hybridworker": rounds(100)}, "starlette")
    assert overview.throughput(measured) == {
        "FastAPI": {"hybridworker": 1.0, "uvicorn-worker": 0.5},
        "Flask, WSGI": {"hybridworker": 1.0, "granian": 0.5},
    }


def test_the_overview_is_a_picture_with_its_values_and_says_them_as_text() -> None:
    """For who sees it and for who does not."""
    measured = results({"hybridworker": rounds(300), "granian": rounds(150)}, "shop-flask")
    picture = ElementTree.fromstring(overview.picture(overview.throughput(measured)))
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["Flask, WSGI", "1.00 hybridworker", "0.50 granian"]
    widths = [float(element.attrib["width"]) for element in picture.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths == [overview.SCALE, overview.SCALE / 2]
    text = overview.overview(measured, "results/overview.svg")
    assert ".. image:: results/overview.svg\n   :alt: Flask, WSGI: granian 0.50\n" in text
