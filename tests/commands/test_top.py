"""top: the picture that it draws, and its numbers as text."""

from __future__ import annotations

import math

import pytest

from hybridworker.commands import top
from hybridworker.commands.top import HEADINGS, duration, picture, printable, seconds, size
from tests.commands.pages import page

FIRST = {"slot": 0, "pid": 4711, "2xx": 100, "buckets": {"0.1": 0, "+Inf": 0}, "resident_memory_bytes": 50 << 20}
LATER = {
    "slot": 0,
    "pid": 4711,
    "2xx": 118,
    "5xx": 2,
    "buckets": {"0.1": 20, "+Inf": 20},
    "resident_memory_bytes": 50 << 20,
    "loop_lag_seconds": 0.002,
    "requests_in_flight": 3,
    "threads_busy": 2,
    "calls_queued": 1,
    "queue_age_seconds": 0.25,
    "reason": "max_requests",
}


def cells(line: str) -> dict[str, str]:
    """The cells of a row, by heading; no cell of the tests holds a space."""
    values = line.split()
    assert len(values) == len(HEADINGS)
    return dict(zip(HEADINGS, values, strict=True))


def test_a_row_says_what_a_worker_does() -> None:
    """Rates and quantiles are those of the time between the two pages."""
    other = {"slot": 3, "pid": 12, "state": "draining"}
    gone = {"slot": 4, "reason": "term", "recycled": 2}
    title, _, headings, row, second, sums = picture("http://x/m", page(0.0, FIRST), page(2.0, LATER, other, gone))
    assert title.startswith("http://x/m  ") and title.endswith("  2 workers")
    assert headings.split() == list(HEADINGS)
    found = cells(row)
    assert (found["SLOT"], found["PID"], found["STATE"]) == ("0", "4711", "ready")
    assert (found["REQ/S"], found["5XX/S"], found["P50"], found["P99"]) == ("10.0", "1.0", "50ms", "99ms")
    assert (found["FLIGHT"], found["BUSY"], found["QUEUE"], found["WAIT"]) == ("3", "2/8", "1", "250ms")
    assert (found["LAG"], found["MEM"], found["RECYCLED"]) == ("2.0ms", "50M", "max_requests")
    assert (cells(second)["STATE"], cells(second)["RECYCLED"]) == ("draining", "-")
    assert sums.split() == ["all", "10.0", "1.0", "50ms", "99ms", "3", "2/16", "1", "250ms", "2.0ms", "50M", "term"]


def test_the_first_screen_has_no_rates() -> None:
    """There is no time between one page."""
    *_, row, _ = picture("u", None, page(0.0, FIRST))
    found = cells(row)
    assert [found[name] for name in ("REQ/S", "5XX/S", "P50", "P99")] == ["-"] * 4


def test_an_application_without_threads_has_no_queue() -> None:
    """A zero would say that there is one."""
    *_, row, _ = picture("u", None, page(0.0, FIRST, threads=0))
    found = cells(row)
    assert [found[name] for name in ("BUSY", "QUEUE", "WAIT")] == ["-"] * 3


def test_a_slot_without_a_worker_has_no_row() -> None:
    """Its counters stay in the sums."""
    before, now = page(0.0, FIRST, {"slot": 1, "2xx": 1}), page(1.0, FIRST, {"slot": 1, "2xx": 6})
    *_, row, sums = picture("u", before, now)
    assert cells(row)["SLOT"] == "0"
    assert sums.split()[1] == "5.0"


def test_the_columns_are_aligned() -> None:
    """Whatever stands in them."""
    rows = picture("u", None, page(0.0, FIRST, {**LATER, "slot": 10, "pid": 1}))[2:]
    ends = [row.index(cell) + len(cell) for row, cell in zip(rows[:3], ("PID", "4711", " 1 "), strict=True)]
    assert ends[0] == ends[1] == ends[2] - 1


def test_nothing_of_the_page_is_a_command_for_the_terminal() -> None:
    """The page may be anybody's."""
    lines = picture("http://\x1b[2J/", None, page(0.0, {**FIRST, "state": "\x1b[31mred", "reason": "\x07"}))
    assert "\x1b" not in "".join(lines) and "\x07" not in "".join(lines)
    assert printable("a\tb\x1bc") == "a?b?c"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0.0ms"),
        (0.00012, "0.1ms"),
        (0.0123, "12ms"),
        (0.25, "250ms"),
        (0.9999, "1.0s"),
        (12.34, "12.3s"),
        (125, "2m05s"),
        (math.inf, ">max"),
    ],
)
def test_a_short_time(value: float, expected: str) -> None:
    """Two or three digits."""
    assert seconds(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0, "0s"), (59.9, "59s"), (61, "1m01s"), (3660, "1h01m"), (90000, "1d01h")]
)
def test_a_long_time(value: float, expected: str) -> None:
    """Its two largest units."""
    assert duration(value) == expected


def test_sizes() -> None:
    """Whole MiB, or GiB."""
    assert (size(50.4 * 2**20), size(12 * 2**30)) == ("50M", "12.0G")


@pytest.mark.parametrize("url", ["", "http://", "ftp://x/metrics", "unix:", "http://x:notaport/"])
def test_a_url_that_is_none(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is a usage error, in one line that says how they look."""
    with pytest.raises(SystemExit) as ended:
        top.main("top", [url])
    assert ended.value.code == 2
    assert "is neither http://HOST:PORT/PATH nor unix:SOCKET:PATH" in capsys.readouterr().err


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and exit code 1."""
    assert top.main("top", ["unix:/nowhere/at/all:/metrics"]) == 1
    assert capsys.readouterr().err == "top: unix:/nowhere/at/all:/metrics: No such file or directory\n"
