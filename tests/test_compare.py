"""The table of features: what is stored, the page made of it and the README agree; no server is started."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.compare import report
from tests.compare.load import Load
from tests.compare.peers import ASGI, OURS, PEERS, WSGI, Want
from tests.compare.registry import GROUPS, Answer, NotAsked, Row, Sign, chosen, judge, no, partly, rows, yes
from tests.compare.servers import Subject

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "compare"


@pytest.fixture(scope="module")
def results() -> Any:
    """What is stored."""
    return json.loads((FOLDER / "results.json").read_text())


def test_every_row_has_a_function_a_title_and_says_how_it_is_tried() -> None:
    """Names are unique, and each group has rows."""
    every = rows()
    assert len({row.name for row in every}) == len({row.title for row in every}) == len(every)
    assert len({row.group for row in every}) == len(GROUPS)
    for row in every:
        assert callable(row.trial) and row.how.endswith((".", "?")), row.name


def test_every_row_was_tried_on_every_server(results: Any) -> None:
    """With an answer: what could not be tried is to be mended, not stored."""
    assert list(results["rows"]) == [row.name for row in rows()]
    for name, found in results["rows"].items():
        assert list(found["answers"]) == list(PEERS), name
        for sign, detail in found["answers"].values():
            assert Sign(sign) is not Sign.UNKNOWN, f"{name}: {detail}"
            assert detail or Sign(sign) is Sign.YES, f"{name}: a {sign} without a reason"


def test_the_page_is_that_of_what_is_stored(results: Any) -> None:
    """``python -m tests.compare report`` changes nothing."""
    assert report.whole(results) == (FOLDER / "results.rst").read_text()


def test_the_readme_is_that_of_what_is_stored(results: Any) -> None:
    """``python -m tests.compare report --into README.rst`` changes nothing."""
    page = (ROOT / "README.rst").read_text()
    assert report.insert(page, results) == page
    assert 10 <= sum(bool(row.short) for row in rows()) <= 14


def test_a_page_without_markers_is_refused(results: Any) -> None:
    """Nothing is written at a place that was guessed."""
    with pytest.raises(ValueError, match="needs the comments"):
        report.insert("no markers", results)


def test_answers_of_other_versions_are_dropped() -> None:
    """Of the same environment the others stay, server by server."""
    stored: dict[str, Any] = {
        "environment": {"versions": {"gunicorn": "27"}},
        "rows": {"http2": {"date": "1", "answers": {"granian": ["yes", ""], OURS: ["yes", ""]}}, "gone": {}},
    }
    fresh = {"date": "2", "answers": {"granian": ["no", "why"]}}
    current = {"environment": {"versions": {"gunicorn": "27"}}, "rows": {"http2": fresh}}
    answers = {OURS: ["yes", ""], "granian": ["no", "why"]}
    assert report.merge(stored, current)["rows"] == {"http2": {"date": "2", "answers": answers}}
    current["environment"] = {"versions": {"gunicorn": "28"}}
    assert report.merge(stored, current) == current


@pytest.mark.parametrize("answer", [yes(), no("why"), partly("some")])
def test_a_row_is_judged_by_what_it_returns(answer: Answer, tmp_path: Path) -> None:
    """And a question that makes no sense, or goes wrong, is no statement on the server."""
    subject = Subject("granian", tmp_path)

    def fails(subject: Subject) -> Answer:
        raise OSError("no such port")

    def is_not_asked(subject: Subject) -> Answer:
        raise NotAsked("why not")

    assert judge(Row("a", "A", "", "G", lambda subject: answer), subject) == answer
    assert judge(Row("a", "A", "", "G", fails), subject) == Answer(Sign.UNKNOWN, "OSError: no such port")
    assert judge(Row("a", "A", "", "G", is_not_asked), subject) == Answer(Sign.NOT_ASKED, "why not")


def test_rows_are_chosen_by_name() -> None:
    """An unknown name is an error, and none means all."""
    assert [row.name for row in chosen(["reload"])] == ["reload"]
    assert chosen([]) == rows()
    with pytest.raises(ValueError, match="no row nonsense"):
        chosen(["nonsense"])


@pytest.mark.parametrize("name", PEERS)
def test_every_server_is_told_its_address_and_its_application(name: str) -> None:
    """On TCP and on a unix socket, by each interface that it serves, with its own options."""
    for interface in PEERS[name].interfaces:
        for address in ("127.0.0.1:8123", "/run/socket"):
            argv = PEERS[name].command(Want("module:app", interface, address, options=["--own"]))
            assert argv[-1].endswith("module:app") and "--own" in argv
            assert any(part.endswith(("8123", "/run/socket")) for part in argv)


def test_a_server_is_not_asked_for_an_interface_that_it_does_not_serve(tmp_path: Path) -> None:
    """gthread has no ASGI, uvicorn's worker no WSGI."""
    with pytest.raises(NotAsked, match="serves WSGI only"):
        Subject("gthread", tmp_path).needs(ASGI)
    with pytest.raises(NotAsked, match="serves ASGI only"):
        Subject("uvicorn-worker", tmp_path).needs(WSGI)


@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", set()),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", {"503"}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", {"cut"}),
        (b"", {"cut"}),
    ],
)
def test_the_load_knows_what_it_has_lost(answer: bytes, lost: set[str]) -> None:
    """A server that answers the first request of each connection, perhaps badly, and closes it."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.settimeout(0.1)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    connection = listener.accept()[0]
                    with connection:
                        connection.recv(1000)
                        connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        try:
            with Load(listener.getsockname()[1]) as load:
                assert load.go_on(20)
        finally:
            over.set()
            server.join()
    assert set(load.lost) == lost
    assert load.bodies == ({b"ok"} if not lost else set())


def test_a_connection_that_is_refused_is_a_loss() -> None:
    """Nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with Load(unused.getsockname()[1]) as load:
            assert load.go_on(10)
    assert set(load.lost) == {"refused"}
