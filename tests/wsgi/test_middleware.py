"""WSGIMiddleware: what the calls of one application have in common, and how they are begun."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from asgiref.wsgi import WsgiToAsgi

from hybridworker.wsgi.middleware import WSGIMiddleware
from tests.waiting import DEADLINE, run
from tests.wsgicall import Client, bridge, environ_of, post

HEADERS = [("Content-Type", "text/plain")]

#: What an application may do wrong here is the point of the test.
INVALID: dict[str, Any] = {"validate": False}


def test_it_is_what_it_says() -> None:
    """The middleware is asgiref's, subclassed."""
    assert issubclass(WSGIMiddleware, WsgiToAsgi)


def test_s1_environ_is_a_real_dict() -> None:
    """The environ is a dict, whose own values do not leak into the next request."""
    seen = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        assert type(environ) is dict
        seen.append("mine" in environ)
        environ["mine"] = environ["wsgi.version"] = 1
        start_response("200 OK", HEADERS)
        return [b"x"]

    async def main() -> None:
        async with bridge(app, **INVALID) as made:
            await made.call()
            await made.call()
            assert made.middleware.environs.constant["wsgi.version"] == (1, 0)

    run(main())
    assert seen == [False, False]


@pytest.mark.parametrize(("threads", "workers"), [(1, 1), (2, 1), (1, 3)])
def test_s9_constants_are_truthful(threads: int, workers: int) -> None:
    """multithread and multiprocess say what the configuration says; the other constants are those of the PEP."""
    environ = environ_of(threads=threads, workers=workers)
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.multithread"] is (threads > 1)
    assert environ["wsgi.multiprocess"] is (workers > 1)
    assert environ["wsgi.run_once"] is False
    assert environ["wsgi.input_terminated"] is True


def test_s8_errors_have_the_methods_that_they_must_have() -> None:
    """wsgi.errors has write, writelines and flush, and is the same stream for every call."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.errors"].write("one\n")
        environ["wsgi.errors"].writelines(["two\n", "three\n"])
        environ["wsgi.errors"].flush()
        start_response("200 OK", HEADERS)
        return [b"x"]

    async def main() -> None:
        async with bridge(app) as made:
            for count in (1, 2):
                await made.call()
                assert made.errors.getvalue() == "one\ntwo\nthree\n" * count

    run(main())


@pytest.mark.parametrize("kind", [list, iter])
def test_complete_request_is_served_without_a_task(kind: Any) -> None:
    """A request that is complete can be begun at once; a response that is not whole is awaited as usual."""

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", HEADERS)
        return kind([environ["wsgi.input"].read(10), b"def"])

    async def main() -> None:
        ready = asyncio.Event()
        async with bridge(app, **INVALID) as made:
            scope = post(3)
            responder = made.middleware.begin(scope, b"abc", ready.set)
            async with asyncio.timeout(DEADLINE):
                await ready.wait()
            client = Client()
            if kind is list:
                assert responder.whole() == b"abcdef"
            await responder(scope, client.receive, client.send)
            assert client.body == b"abcdef"
            assert client.complete
            assert client.asked == 0

    run(main())


def test_calls_do_not_overlap_with_one_thread() -> None:
    """threads=1 means that an application is never called while it runs, also while its response is sent."""
    running: list[int] = []
    most: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        running.append(1)
        start_response("200 OK", HEADERS)
        for _ in range(10):
            yield b"x"
            most.append(len(running))
        running.pop()

    async def main() -> None:
        async with bridge(app, threads=1) as made:
            await asyncio.gather(*[made.call() for _ in range(20)])

    run(main())
    assert set(most) == {1}


@pytest.mark.parametrize("threads", [1, 8])
def test_many_calls_at_once(threads: int) -> None:
    """Whatever many calls do at once, each gets its own answer."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        data = environ["wsgi.input"].read(1000)
        start_response("200 OK", HEADERS)
        if len(data) % 3 == 0:
            return [data]
        return (data[index : index + 1] for index in range(len(data)))

    async def main() -> None:
        async with bridge(app, threads=threads) as made:
            bodies = [bytes([number % 251]) * (number % 50) for number in range(300)]
            clients = await asyncio.gather(
                *[made.call(post(None if number % 2 else len(body)), body) for number, body in enumerate(bodies)]
            )
            assert [client.body for client in clients] == bodies
            assert made.loop_errors == []

    run(main())
