"""Skip: which requests have no line, and that they are counted all the same."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest
from gunicorn import glogging
from gunicorn.instrument.statsd import Statsd

from hybridworker.log.access import access_writer
from hybridworker.log.skip import Muffler, SkippedPaths
from tests.harness import make_settings
from tests.log.bench import REQUESTS, Bench, Exchange, scope_of


@pytest.mark.parametrize(
    ("path", "status", "skipped"),
    [
        ("/healthz", 200, True),
        ("/healthz", 399, True),
        ("/healthz", 101, True),
        ("/healthz", 400, False),
        ("/healthz", 499, False),
        ("/healthz", 503, False),
        ("/healthz/", 200, False),
        ("/health", 200, False),
        ("/static/a.css", 304, True),
        ("/static/", 200, True),
        ("/static", 200, False),
        ("/statics", 200, False),
        ("/static/missing", 404, False),
        ("/a b", 200, True),
    ],
)
def test_a_path_or_a_prefix(path: str, status: int, skipped: bool) -> None:
    """The decoded path, exactly, or what begins with a prefix; as long as all is well."""
    paths = SkippedPaths(("/healthz", "/static/*", "/a b"))
    assert paths.skips({"path": path}, status) is skipped


def test_all_paths() -> None:
    """What is left are the failures."""
    assert SkippedPaths(["/*"]).skips({"path": "/any"}, 200)
    assert not SkippedPaths(["/*"]).skips({"path": "/any"}, 500)
    assert not SkippedPaths([]).skips({"path": "/any"}, 200)


def exchange(path: str, status: int = 200) -> Exchange:
    return Exchange(scope_of(REQUESTS["plain"], path=path), status)


def write(bench: Bench, log: Any, *exchanges: Exchange, **settings: Any) -> None:
    """Write lines as the worker does, on a loop."""

    async def main() -> None:
        writer = access_writer(log, bench.cfg, make_settings(access_skip=("/healthz", "/static/*"), **settings))
        assert writer is not None
        for one in exchanges:
            writer(one)

    asyncio.run(main())


@pytest.mark.parametrize("json", [None, ("s",)], ids=["text", "json"])
def test_skipped_requests_have_no_line(json: tuple[str, ...] | None, bench: Bench) -> None:
    """Unless they fail."""
    log = bench.logger(access_log_format="%(s)s")
    write(bench, log, exchange("/healthz"), exchange("/static/x", 404), exchange("/", 201), access_json=json)
    assert bench.lines() == (["404", "201"] if json is None else ['{"status":404}', '{"status":201}'])


class Counting(Statsd):  # type: ignore[misc]  # gunicorn has no types
    """A logger of the user's on top of gunicorn's statsd."""

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        super().access(resp, req, environ, request_time)


@pytest.mark.parametrize("kind", [Statsd, Counting])
@pytest.mark.parametrize("json", [None, ("s",)], ids=["text", "json"])
def test_statsd_goes_on(
    kind: type[Any], json: tuple[str, ...] | None, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request is counted once, skipped or not."""
    sent: list[str] = []
    monkeypatch.setattr(Statsd, "_sock_send", lambda self, message: sent.append(message))
    log = bench.logger(kind, access_log_format="%(s)s", statsd_host="127.0.0.1:1")
    log.sock.close()
    write(bench, log, exchange("/healthz"), exchange("/healthz", 503), exchange("/"), access_json=json)
    as_json = json is not None and kind is Statsd
    assert bench.lines() == (['{"status":503}', '{"status":200}'] if as_json else ["503", "200"])
    assert sum("gunicorn.requests:" in message for message in sent) == 3


def test_statsd_without_an_access_log(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts, and there is no line."""
    sent: list[str] = []
    monkeypatch.setattr(Statsd, "_sock_send", lambda self, message: sent.append(message))
    log = bench.logger(Statsd, accesslog=None, statsd_host="127.0.0.1:1")
    log.sock.close()
    write(bench, log, exchange("/healthz"), exchange("/"), access_json=("s",))
    assert sum("gunicorn.requests:" in message for message in sent) == 2
    assert not bench.access.exists() or bench.lines() == []


class Own(glogging.Logger):  # type: ignore[misc]
    """One that writes by itself."""

    calls: list[str] = []  # noqa: RUF012  # of the class, so that it can be read

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        self.calls.append(environ["PATH_INFO"])


def test_a_logger_class_of_the_users_is_not_called_for_them(bench: Bench) -> None:
    """It would write a line of its own."""
    Own.calls.clear()
    skipped = exchange("/healthz")
    skipped.scope["raw_path"] = b"/healthz"
    write(bench, bench.logger(Own), skipped, exchange("/other"))
    assert Own.calls == ["/a/b"]  # the raw path of the other one


def test_the_muffler_drops_what_its_own_thread_logs() -> None:
    """And only in the course of the call, which may raise."""
    logger, seen = logging.getLogger("tests.muffled"), []
    logger.setLevel(logging.INFO)
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    muffler = Muffler(logger)

    def call() -> None:
        logger.info("dropped")
        thread = threading.Thread(target=logger.info, args=("kept",))
        thread.start()
        thread.join()
        raise ValueError

    with pytest.raises(ValueError):
        muffler.call(call)
    logger.info("after")
    logger.removeHandler(handler)
    assert seen == ["kept", "after"]
