"""Server: accepting, the limit of connections, the tick, and leaving."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme
import uvloop

from hybridworker.asgi import ASGIApp, Receive, Scope, Send
from hybridworker.connection.accepted import Accepted
from hybridworker.connection.context import WorkerContext
from hybridworker.group.scoreboard import CONNECTIONS, IN_FLIGHT, TAKEN, Group, Scoreboard
from hybridworker.group.share import LEAD, OFFERS_MAX, Share
from hybridworker.http11.protocol import HTTPProtocol
from hybridworker.process import server as module
from hybridworker.process.listener import Arrival, Listener
from hybridworker.process.server import ACCEPT_BATCH, DEFER, DEFER_MAX, Server
from hybridworker.states import ConnectionState, ServerState
from tests.fakes import FakeLog
from tests.harness import GET, HELLO, application, body, make_settings, start
from tests.slots import take

DEADLINE = 10


class Bound:
    """What gunicorn's listening sockets look like from here."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)

    def close(self) -> None:
        self.sock.close()


class Site:
    """A running server and clients for it. ``siblings`` are workers that accept, and carry nothing by themselves."""

    def __init__(
        self, app: ASGIApp, ssl_context: ssl.SSLContext | None, settings: dict[str, Any], siblings: int | None = None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.log = FakeLog()
        scoreboard = Scoreboard(8)
        own, *self.siblings = [take(scoreboard, age) for age in range(1, 2 + (siblings or 0))]
        self.context = WorkerContext(
            application=application(app), settings=make_settings(**settings), loop=self.loop, log=self.log, slot=own
        )
        share = None if siblings is None else Share(Group(scoreboard, own), self.context.settings)
        self.bound = Bound()
        self.address = self.bound.sock.getsockname()
        self.server = Server(self.context, [self.bound], ssl_context, share)
        self.writers: list[asyncio.StreamWriter] = []

    async def client(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address, **options)
        self.writers.append(writer)
        return reader, writer

    async def get(self) -> bytes:
        """One request on a connection of its own, which stays open."""
        reader, writer = await self.client()
        writer.write(GET)
        return await asyncio.wait_for(reader.readuntil(b"hello"), DEADLINE)

    async def lead(self) -> None:
        """Carry so much that the next connection is left to a sibling that carries nothing."""
        for _ in range(LEAD):
            await self.get()
        await self.until(lambda: self.context.slot[IN_FLIGHT] == 0)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110  (conditions of several objects, none of which has an event)
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        for writer in self.writers:
            writer.close()
        await self.server.drain(self.loop.time())
        for writer in self.writers:
            try:
                await asyncio.wait_for(writer.wait_closed(), DEADLINE)
            except (OSError, ssl.SSLError):
                pass  # cut by the server, as some tests want it


def serve(
    test: Callable[[Site], Awaitable[None]],
    app: ASGIApp = HELLO,
    ssl_context: ssl.SSLContext | None = None,
    siblings: int | None = None,
    **settings: Any,
) -> None:
    """Run ``test`` against a server on uvloop. ``siblings`` is how many other workers it knows, None that it cannot."""

    async def main() -> None:
        site = Site(app, ssl_context, settings, siblings)
        try:
            await test(site)
        finally:
            await site.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


class Gate:
    """An application that answers when it is let."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.running += 1
        await self.event.wait()
        await HELLO(scope, receive, send)


def test_connections_are_accepted_and_served() -> None:
    """From the listener to the application and back."""

    async def test(site: Site) -> None:
        site.server.start()
        assert site.server.state is ServerState.SERVING
        assert (await site.get()).startswith(b"HTTP/1.1 200 OK")

    serve(test)


def test_no_connection_is_accepted_before_the_start() -> None:
    """L3: the backlog holds them while the application starts."""

    async def test(site: Site) -> None:
        getting = asyncio.create_task(site.get())
        for _ in range(50):
            await asyncio.sleep(0)
        assert not site.context.connections
        site.server.start()
        assert (await getting).endswith(b"hello")

    serve(test)


@pytest.mark.parametrize("workers", [1, 2])
def test_connections_above_the_limit_wait_in_the_backlog(workers: int) -> None:
    """``worker_connections`` stops accepting, and nothing is refused."""

    async def test(site: Site) -> None:
        site.server.start()
        for _ in range(2):  # none of them is idle: they have not had an answer yet
            await site.client()
        await site.until(lambda: len(site.context.connections) == 2)
        third = asyncio.create_task(site.get())
        await site.until(lambda: not site.server.accepting)
        assert len(site.context.connections) == 2
        site.writers[0].close()
        assert (await third).endswith(b"hello")

    serve(test, worker_connections=2, workers=workers, keepalive=100)


def test_an_exhausted_process_pauses_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE never spins: accepting rests until the tick after a second."""
    calls = []

    def exhausted(listener: Listener) -> socket.socket:
        calls.append(listener)
        raise OSError(errno.EMFILE, "too many open files")

    async def test(site: Site) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Listener, "accept", exhausted)
            site.server.start()
            getting = asyncio.create_task(site.get())
            await site.until(lambda: bool(calls))
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(calls) == 1
        assert len(site.log.at("error")) == 1
        site.server.tick(site.loop.time())
        assert not site.server.accepting
        site.server.paused_until = 0
        site.server.tick(site.loop.time() + 2)
        assert (await getting).endswith(b"hello")

    serve(test)


def test_another_error_of_accept_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is known to pass is waited for."""

    def broken(listener: Listener) -> socket.socket:
        raise OSError(errno.EBADF, "bad descriptor")

    async def test(site: Site) -> None:
        monkeypatch.setattr(Listener, "accept", broken)
        with pytest.raises(OSError, match="bad descriptor"):
            site.server._accept(site.server.listeners[0])

    serve(test)


def test_a_peer_that_gave_up_is_no_error_and_the_next_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is logged, and accepting does not rest."""
    accept, answers = Listener.accept, [None, None]

    def some(listener: Listener) -> socket.socket | None:
        return answers.pop() if answers else accept(listener)

    async def test(site: Site) -> None:
        monkeypatch.setattr(Listener, "accept", some)
        site.server.start()
        assert (await site.get()).endswith(b"hello")
        assert not answers
        assert site.log.lines == []

    serve(test)


def test_the_tick_expires_silent_connections() -> None:
    """Every timeout of every connection is looked at once a second."""

    async def test(site: Site) -> None:
        site.server.start()
        reader, _ = await site.client()
        await site.until(lambda: bool(site.context.connections))
        site.server.tick(site.loop.time() + 100)
        assert await asyncio.wait_for(reader.read(), DEADLINE) == b""

    serve(test)


@contextmanager
def certificates() -> Iterator[tuple[ssl.SSLContext, ssl.SSLContext]]:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    yield server, client


@pytest.mark.parametrize("header_timeout", [10, math.inf])
def test_tls(header_timeout: float) -> None:
    """The same through a handshake, whether there is a limit to that or none."""
    with certificates() as (server, client):

        async def test(site: Site) -> None:
            site.server.start()
            reader, writer = await site.client(ssl=client, server_hostname="localhost")
            writer.write(GET)
            answer = await asyncio.wait_for(reader.readuntil(b"hello"), DEADLINE)
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert answer.endswith(b"hello")

        serve(test, ssl_context=server, header_timeout=header_timeout)


def test_a_plain_request_to_a_tls_port_harms_nobody() -> None:
    """The connection fails, the next one is served."""
    with certificates() as (server, client):

        async def test(site: Site) -> None:
            site.server.start()
            plain, writer = await site.client()
            writer.write(GET)
            try:
                assert b"HTTP" not in await asyncio.wait_for(plain.read(), DEADLINE)
            except ConnectionResetError:
                pass  # as good a refusal as any
            reader, writer = await site.client(ssl=client, server_hostname="localhost")
            writer.write(GET)
            assert (await asyncio.wait_for(reader.readuntil(b"hello"), DEADLINE)).endswith(b"hello")
            assert site.log.at("error") == []

        serve(test, ssl_context=server)


def test_a_handshake_that_does_not_end_is_dropped() -> None:
    """It falls under the header timeout, and counts against the limit meanwhile."""
    with certificates() as (server, _):

        async def test(site: Site) -> None:
            site.server.start()
            reader, _ = await site.client()
            await site.until(lambda: bool(site.server.arrivals))
            try:
                assert await asyncio.wait_for(reader.read(), DEADLINE) == b""
            except ConnectionResetError:
                pass
            await site.until(lambda: not site.server.arrivals)

        serve(test, ssl_context=server, header_timeout=0.05)


def test_handshakes_count_against_the_limit_at_the_tick() -> None:
    """When what was counted is counted anew."""
    with certificates() as (server, _):

        async def test(site: Site) -> None:
            site.server.start()
            await site.client()
            await site.until(lambda: bool(site.server.arrivals))
            site.server.tick(site.loop.time())
            assert site.server.full

        serve(test, ssl_context=server, worker_connections=1)


def test_a_handshake_is_cut_when_the_time_is_up() -> None:
    """Which is nobody's error."""
    with certificates() as (server, _):

        async def test(site: Site) -> None:
            site.server.start()
            reader, _ = await site.client()
            await site.until(lambda: bool(site.server.arrivals))
            assert await site.server.drain(site.loop.time()) == 0
            assert not site.server.arrivals
            try:
                assert await asyncio.wait_for(reader.read(), DEADLINE) == b""
            except ConnectionResetError:
                pass  # as good an end as any
            assert site.log.at("error") == []

        serve(test, ssl_context=server)


def test_a_drain_does_not_wait_for_a_handshake() -> None:
    """It has the time of a first request, whatever the header timeout."""
    with certificates() as (server, client):

        async def test(site: Site) -> None:
            site.server.start()
            reader, _ = await site.client()
            late, writer = await site.client(ssl=client, server_hostname="localhost")
            await site.until(lambda: bool(site.server.arrivals))
            draining = asyncio.create_task(site.server.drain(site.loop.time() + 1000))
            await asyncio.sleep(0)
            writer.write(GET)  # it has shaken hands
            assert (await asyncio.wait_for(late.readuntil(b"hello"), DEADLINE)).startswith(b"HTTP/1.1 200 OK")
            assert await asyncio.wait_for(draining, DEADLINE) == 0
            try:
                assert await asyncio.wait_for(reader.read(), DEADLINE) == b""
            except ConnectionResetError:
                pass  # as good an end as any
            assert site.log.at("error") == []

        serve(test, ssl_context=server, header_timeout=math.inf, first_window=0.3)


def test_a_newcomer_takes_the_place_of_an_idle_connection_at_once() -> None:
    """Although that one is still there, until its client has closed it too; and it counts no more when it is gone."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.get()
        assert (await site.get()).endswith(b"hello")
        assert len(site.context.connections) == 2
        assert len(site.server.parting) == 1
        assert site.server.accepting
        site.writers[0].close()
        await site.until(lambda: not site.server.parting)
        assert site.server.size == 1
        assert site.server.full

    serve(test, worker_connections=1, keepalive=100)


def test_a_process_that_is_left_ends_its_connections() -> None:
    """Without another turn of the loop, and whatever has them open."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.get()
        reader, _ = await site.client()
        await site.until(lambda: len(site.context.connections) == 2)
        children = [os.dup(connection.flow.fileno()) for connection in site.context.connections]
        site.server.hang_up()
        assert await asyncio.wait_for(reader.read(), DEADLINE) == b""
        for child in children:
            os.close(child)

    serve(test, keepalive=100)


def test_a_connection_that_cannot_be_made_is_given_up() -> None:
    """Its descriptor too, and its place."""

    socks: list[socket.socket] = []

    class Unwilling(Watched):
        async def connect_accepted_socket(self, factory: Any, sock: socket.socket) -> Any:
            factory()
            socks.append(sock)
            raise ValueError("not that one")

    async def test(site: Site) -> None:
        Unwilling(site)
        with socket.create_connection(site.address):
            site.server._accept(site.server.listeners[0])
            await site.until(lambda: not site.server.arrivals)
        (sock,) = socks
        assert sock.fileno() == -1
        assert (site.server.size, site.server.arrivals) == (0, {})
        assert len(site.log.at("error")) == 1

    serve(test)


def test_a_connection_that_was_lost_at_once_is_counted_once() -> None:
    """It was among those of the context, and has said itself that it is gone."""

    async def connecting() -> Any:
        pass

    async def test(site: Site) -> None:
        arrival = Arrival(connecting(), lambda arrival: None)
        arrival.proceed()
        protocol = HTTPProtocol(site.context)
        protocol.state = ConnectionState.CLOSED
        site.server.size = 1  # another one
        with Accepted(socket.AF_INET) as sock:
            site.server.arrivals[arrival] = protocol, sock
            site.server._connected(arrival)
            assert site.server.size == 1

    serve(test)


def test_an_idle_connection_stays_while_nobody_waits() -> None:
    """That the limit is reached is no reason to end it."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.get()
        await site.get()
        assert site.server.full
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(site.context.connections) == 2

    serve(test, worker_connections=2, keepalive=100)


@pytest.mark.parametrize("waiting", [0, 1])
def test_who_waits_at_any_of_several_sockets_is_seen(waiting: int) -> None:
    """The idle connection makes room for those of each."""

    async def test(site: Site) -> None:
        with Bound().sock as second:
            second.listen()
            site.server.listeners.append(Listener(second))
            await asyncio.sleep(0)
            assert not site.server._awaited()
            with socket.create_connection(site.server.listeners[waiting].sock.getsockname()):
                assert site.server._awaited()

    serve(test)


def test_drain_finishes_what_was_begun() -> None:
    """A request in flight gets its answer, with ``Connection: close``; nobody new gets in."""

    async def test(site: Site) -> None:
        gate = site.context.router.default.app
        assert isinstance(gate, Gate)
        site.server.start()
        reader, writer = await site.client()
        writer.write(GET)
        await site.until(lambda: gate.running == 1)
        draining = asyncio.create_task(site.server.drain(site.loop.time() + DEADLINE))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await site.client()
        gate.event.set()
        answer = await asyncio.wait_for(reader.read(), DEADLINE)
        assert b"Connection: close" in answer
        assert answer.endswith(b"hello")
        assert await draining == 0
        assert site.server.state is ServerState.STOPPED

    serve(test, app=Gate())


def test_drain_empties_a_queue_of_its_own() -> None:
    """With ``reuse_port`` nobody else would take the connections that wait."""

    async def test(site: Site) -> None:
        getting = [asyncio.create_task(site.get()) for _ in range(2 * ACCEPT_BATCH)]
        await site.until(lambda: len(site.writers) == 2 * ACCEPT_BATCH)
        await asyncio.wait_for(site.server.drain(site.loop.time() + DEADLINE), DEADLINE)
        assert all(answer.endswith(b"hello") for answer in await asyncio.gather(*getting))

    serve(test, reuse_port=True, workers=2)


def test_drain_does_not_wait_for_idle_connections() -> None:
    """They may speak for the drain window and are closed then."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.get()
        await asyncio.wait_for(site.server.drain(site.loop.time() + 1000), DEADLINE)
        assert not site.context.connections

    serve(test, keepalive=1000, drain_window=0.01)


def test_drain_cuts_what_is_not_finished_in_time() -> None:
    """At the deadline tasks are cancelled and connections dropped; the number is returned."""

    async def test(site: Site) -> None:
        gate = site.context.router.default.app
        assert isinstance(gate, Gate)
        site.server.start()
        reader, writer = await site.client()
        writer.write(GET)
        await site.until(lambda: gate.running == 1)
        assert await site.server.drain(site.loop.time()) == 1
        try:
            assert await asyncio.wait_for(reader.read(), DEADLINE) in (b"",)
        except ConnectionResetError:
            pass
        assert not site.context.cycles

    serve(test, app=Gate())


def test_what_cleans_up_is_not_interrupted_by_the_cut() -> None:
    """A request that was given up before has a second for it, like the others."""
    events: list[str] = []
    begun = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")
            await asyncio.sleep(0.01)
            events.append("clean")

    async def test(site: Site) -> None:
        site.server.start()
        _, writer = await site.client()
        writer.write(GET)
        await begun.wait()
        [cycle] = site.context.cycles
        cycle.cancel()
        await site.until(lambda: bool(events))
        assert await site.server.drain(site.loop.time()) == 1
        assert events == ["cancelled", "clean"]

    serve(test, app=app)


def test_drain_waits_for_background_work() -> None:
    """What an application does behind its response is work in flight."""
    done: list[bool] = []
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"5")))
        await send(body(b"hello"))
        await gate.wait()
        done.append(True)

    async def test(site: Site) -> None:
        site.server.start()
        await site.get()
        draining = asyncio.create_task(site.server.drain(site.loop.time() + DEADLINE))
        await site.until(lambda: not site.context.connections)
        assert not draining.done()
        gate.set()
        assert await draining == 0
        assert done == [True]

    serve(test, app=app, drain_window=0)


def test_a_stream_is_cut_before_the_rest() -> None:
    """What has begun without a length has a time of its own; what has not begun goes on."""
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/stream":
            await send(start(200))
            await send(body(b"first", more=True))
        await gate.wait()
        await HELLO(scope, receive, send)

    async def test(site: Site) -> None:
        site.server.start()
        reader, writer = await site.client()
        endless, asker = await site.client()
        writer.write(GET)
        asker.write(GET.replace(b" / ", b" /stream "))
        await asyncio.wait_for(endless.readuntil(b"first"), DEADLINE)
        await site.until(lambda: len(site.context.cycles) == 2)
        draining = asyncio.create_task(site.server.drain(math.inf, 0.01))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(endless.readuntil(b"0\r\n\r\n"), DEADLINE)
        assert not draining.done()
        gate.set()
        assert (await asyncio.wait_for(reader.read(), DEADLINE)).endswith(b"hello")
        assert await draining == 1

    serve(test, app=app)


@pytest.mark.parametrize("under_way", [False, True])
def test_a_drain_may_be_hurried(under_way: bool) -> None:
    """Before it begins and while it is under way; and nothing gives it more time than it has."""

    async def test(site: Site) -> None:
        gate = site.context.router.default.app
        assert isinstance(gate, Gate)
        site.server.start()
        _, writer = await site.client()
        writer.write(GET)
        await site.until(lambda: gate.running == 1)
        if not under_way:
            site.server.hurry(site.loop.time())
        draining = asyncio.create_task(site.server.drain(math.inf))
        await asyncio.sleep(0)
        if under_way:
            site.server.hurry(site.loop.time())
        site.server.hurry(math.inf)
        assert await asyncio.wait_for(draining, DEADLINE) == 1

    serve(test, app=Gate())


def test_the_drain_looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that arrive through a handshake during the drain are drained as well."""
    monkeypatch.setattr(module, "DRAIN_TICK", 0.001)
    with certificates() as (server, client):

        async def test(site: Site) -> None:
            site.server.start()
            connecting = asyncio.create_task(site.client(ssl=client, server_hostname="localhost"))
            await site.until(lambda: bool(site.server.arrivals))
            await asyncio.wait_for(site.server.drain(site.loop.time() + 1000), DEADLINE)
            assert not site.context.connections
            await asyncio.wait([connecting], timeout=DEADLINE)
            if connecting.exception() is not None:
                assert isinstance(connecting.exception(), OSError)

        serve(test, ssl_context=server, drain_window=0)


# -- among siblings


class Watched:
    """
    A loop that keeps what the server asks of it while it accepts; ``accept`` is a connection taken.

    ``meanwhile`` is called whenever a connection has just been left to others.
    """

    def __init__(self, site: Site, meanwhile: Callable[[], Any] = lambda: None) -> None:
        self.loop = site.loop
        self.meanwhile = meanwhile
        self.calls: list[str] = []
        self.timers: list[float] = []
        self.slowness = 20  #: so that a machine that stalls for a moment does not let a timer come before `meanwhile`
        site.server.loop = self  # type: ignore[assignment]

    def add_reader(self, *args: Any) -> None:
        self.calls.append("add")
        self.loop.add_reader(*args)

    def remove_reader(self, fd: int) -> bool:
        self.calls.append("remove")
        return self.loop.remove_reader(fd)

    def call_later(self, delay: float, *args: Any) -> asyncio.TimerHandle:
        self.calls.append("later")
        self.timers.append(delay)
        timer = self.loop.call_later(delay * self.slowness, *args)
        self.loop.call_soon(self.meanwhile)
        return timer

    def connect_accepted_socket(self, *args: Any, **options: Any) -> Any:
        self.calls.append("accept")
        return self.loop.connect_accepted_socket(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)


#: Once: leave the connection to others, look again.
LEFT = ["remove", "later", "add"]


def test_a_connection_is_left_to_a_sibling_a_few_times_and_then_taken() -> None:
    """The reader is removed, a timer set, the reader added, and nothing else: a spin would show as more of them."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.lead()
        loop = Watched(site)
        assert (await site.get()).endswith(b"hello")
        assert loop.calls == LEFT * DEFER_MAX + ["accept"]
        assert loop.timers == [DEFER] * DEFER_MAX

    serve(test, siblings=1, keepalive=100)


def test_what_a_sibling_took_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection wakes all workers, and one gets it: the others look before they try."""

    def accept(listener: Listener) -> socket.socket:
        raise AssertionError("nobody is there")

    async def test(site: Site) -> None:
        monkeypatch.setattr(Listener, "accept", accept)
        site.server._accept(site.server.listeners[0])

    serve(test, siblings=1)


@pytest.mark.parametrize("load", [1, 2, 5])
def test_a_connection_is_taken_at_once_by_who_carries_no_more_than_others(load: int) -> None:
    """The gate costs nothing while the shares are fair."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.lead()
        for sibling in site.siblings:
            sibling[CONNECTIONS] = load
        loop = Watched(site)
        assert (await site.get()).endswith(b"hello")
        assert loop.calls == ["accept"]

    serve(test, siblings=2, keepalive=100)


def test_a_connection_is_taken_as_soon_as_the_shares_are_fair_again() -> None:
    """The load is looked at anew each time."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.lead()
        loop = Watched(site, lambda: site.siblings[0].__setitem__(CONNECTIONS, 1))
        assert (await site.get()).endswith(b"hello")
        assert loop.calls == [*LEFT, "accept"]

    serve(test, siblings=1, keepalive=100)


def test_each_connection_is_left_to_others_as_often() -> None:
    """One that a sibling took does not count against the next."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.lead()
        taken: list[socket.socket] = []

        def take() -> None:
            """As the sibling would."""
            if not taken:
                taken.append(site.bound.sock.accept()[0])

        loop = Watched(site, take)
        await site.client()
        await site.until(lambda: loop.calls == LEFT)
        assert site.server.deferred == 0
        await site.get()
        assert loop.calls == LEFT + LEFT * DEFER_MAX + ["accept"]
        taken[0].close()

    serve(test, siblings=1, keepalive=100)


def test_nothing_but_the_timer_ends_the_wait_of_one_that_carries_more() -> None:
    """A tick and a connection that ends meanwhile are no reason to look sooner while the share is as it was."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.lead()
        seen: list[str] = []

        def meanwhile() -> None:
            site.server.tick(site.loop.time())
            site.server._go_on()  # as when a connection is gone
            seen.append(loop.calls[-1])

        loop = Watched(site, meanwhile)
        assert (await site.get()).endswith(b"hello")
        assert seen == ["later"] * DEFER_MAX

    serve(test, siblings=1, keepalive=100)


def test_the_wait_is_over_when_the_share_is_fair() -> None:
    """A connection of this worker ended: whoever waits is served at once, and the timer is cancelled."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.lead()
        timers: list[asyncio.TimerHandle | None] = []

        def meanwhile() -> None:
            timers.append(site.server.deferral)
            site.writers[0].close()

        loop = Watched(site, meanwhile)
        # Long enough for the end of the connection to come first, on any machine.
        loop.slowness = 100_000
        assert (await site.get()).endswith(b"hello")
        assert loop.calls == [*LEFT, "accept"]
        (timer,) = timers
        assert timer is not None
        assert timer.cancelled()
        assert (site.server.deferral, site.server.deferred) == (None, 0)

    serve(test, siblings=1, keepalive=100)


def test_an_error_in_counting_does_not_last() -> None:
    """It would make the worker full, or unfair, for ever."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.get()
        await site.until(lambda: not site.server.arrivals)
        site.server.size = 9
        assert site.server.full
        site.server.tick(site.loop.time())
        assert site.server.size == 1

    serve(test, worker_connections=9, keepalive=100)


@pytest.mark.parametrize("siblings", [None, 1])
def test_a_worker_is_full_with_as_many_connections_as_it_may_have(siblings: int | None) -> None:
    """None is counted twice while it gets its protocol. Where a sibling has room nobody has to wait."""

    async def test(site: Site) -> None:
        site.server.start()
        seen: list[bool] = []
        context, make = site.context, HTTPProtocol.connection_made

        def connection_made(protocol: Any, transport: Any) -> None:
            make(protocol, transport)
            seen.append(site.server.full)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(HTTPProtocol, "connection_made", connection_made)
            for _ in range(3):
                await site.get()
        assert seen == [False, False, True]
        assert (site.server.size, len(context.connections)) == (3, 3)
        assert site.server.saturated is (siblings is None)
        for sibling in site.siblings:
            sibling[CONNECTIONS] = 3
        assert site.server.saturated

    serve(test, siblings=siblings, worker_connections=3, keepalive=100)


def test_what_is_taken_is_counted() -> None:
    """For the siblings, who see by it that this worker takes what is left to it."""

    async def test(site: Site) -> None:
        site.server.start()
        for count in (1, 2, 3):
            await site.get()
            assert site.context.slot[TAKEN] == count

    serve(test, siblings=0)


@pytest.mark.parametrize("slow", [False, True])
def test_a_sibling_that_takes_what_is_left_to_it_is_not_blocked(slow: bool) -> None:
    """However long it takes it."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.lead()
        (sibling,) = site.siblings

        def take() -> None:
            if slow:
                sibling[TAKEN] += 1

        loop = Watched(site, take)
        for _ in range(8):
            await site.get()
        assert (LEFT * DEFER_MAX == loop.calls[-1 - len(LEFT) * DEFER_MAX : -1]) is slow

    serve(test, siblings=1, keepalive=100)


def test_a_blocked_sibling_soon_delays_nobody() -> None:
    """A sibling that takes nothing of what it could have counts no more, until the tick."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.lead()
        for _ in range(math.ceil(OFFERS_MAX / DEFER_MAX)):
            await site.get()
        loop = Watched(site)
        await site.get()
        assert loop.calls == ["accept"]
        site.server.tick(site.loop.time())
        loop.calls.clear()
        await site.get()
        assert loop.calls == [*LEFT, "accept"]

    serve(test, siblings=1, keepalive=100)


def test_a_drain_during_the_wait_is_the_end_of_it() -> None:
    """The timer finds that nothing is to be accepted any more."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.lead()
        drains: list[asyncio.Task[int]] = []
        loop = Watched(site, lambda: drains.append(asyncio.create_task(site.server.drain(site.loop.time()))))
        await site.client()
        await site.until(lambda: bool(drains) and drains[0].done())
        assert loop.calls == LEFT[:2]
        assert len(drains) == 1

    serve(test, siblings=1, keepalive=100)


def test_with_reuse_port_nothing_is_left_to_others() -> None:
    """Nobody else could take it."""

    async def test(site: Site) -> None:
        site.server.start()
        await site.lead()
        loop = Watched(site)
        await site.get()
        assert loop.calls == ["accept"]

    serve(test, siblings=1, keepalive=100, reuse_port=True, workers=2)


@pytest.mark.parametrize(
    ("siblings", "workers", "load", "batch"),
    [
        (None, 1, 0, 4),
        (0, 1, 0, 4),
        (None, 2, 0, 1),
        (1, 2, 100, 4),
        (1, 2, 1, LEAD + 1),
        (1, 2, 0, LEAD),
        (2, 3, 0, LEAD),
    ],
)
def test_so_many_are_taken_at_once_as_siblings_do_not_lack(
    siblings: int | None, workers: int, load: int, batch: int
) -> None:
    """A worker that is alone takes what there is; one that does not know takes one; the others keep the shares fair."""

    async def test(site: Site) -> None:
        for sibling in site.siblings:
            sibling[CONNECTIONS] = load
        for _ in range(4):
            await site.client()
        loop = Watched(site)
        site.server._accept(site.server.listeners[0])
        assert loop.calls == ["accept"] * batch
        await site.until(lambda: not site.server.arrivals)

    serve(test, siblings=siblings, workers=workers)


def test_connections_without_a_request_yet_are_not_light() -> None:
    """A sibling's that are served count twice; what is taken at once is no more than makes the shares of both fair."""

    async def test(site: Site) -> None:
        for _ in range(20):
            await site.client()
        (sibling,) = site.siblings
        sibling[CONNECTIONS] = sibling[IN_FLIGHT] = 8
        loop = Watched(site)
        site.server._accept(site.server.listeners[0])
        assert loop.calls == ["accept"] * (8 + LEAD)
        loop.calls.clear()
        site.server._accept(site.server.listeners[0])  # their requests have still not come
        assert loop.calls == ["later"]
        await site.until(lambda: not site.server.arrivals)

    serve(test, siblings=1, keepalive=100)


def test_siblings_see_the_connections_and_the_requests() -> None:
    """From the accept to the end, each once."""

    async def test(site: Site) -> None:
        gate = site.context.router.default.app
        assert isinstance(gate, Gate)
        site.server.start()
        slot = site.context.slot
        _, writer = await site.client()
        await site.until(lambda: slot[CONNECTIONS] == 1)
        await site.until(lambda: not site.server.arrivals)
        assert (slot[CONNECTIONS], slot[IN_FLIGHT]) == (1, 0)
        writer.write(GET)
        await site.until(lambda: slot[IN_FLIGHT] == 1)
        assert slot[CONNECTIONS] == 1
        gate.event.set()
        await site.until(lambda: slot[IN_FLIGHT] == 0)
        writer.close()
        await site.until(lambda: slot[CONNECTIONS] == 0)

    serve(test, app=Gate(), siblings=0, keepalive=100)


def test_a_handshake_that_failed_makes_room() -> None:
    """At the limit the next connection need not wait for the tick."""
    with certificates() as (server, client):

        async def test(site: Site) -> None:
            site.server.start()
            reader, writer = await site.client()
            await site.until(lambda: bool(site.server.arrivals))
            second = asyncio.create_task(site.client(ssl=client, server_hostname="localhost"))
            await site.until(lambda: not site.server.accepting)
            writer.write(GET)
            try:
                await asyncio.wait_for(reader.read(), DEADLINE)
            except ConnectionResetError:
                pass  # as good a refusal as any
            reader, writer = await asyncio.wait_for(second, DEADLINE)
            writer.write(GET)
            assert (await asyncio.wait_for(reader.readuntil(b"hello"), DEADLINE)).endswith(b"hello")

        serve(test, ssl_context=server, worker_connections=1, keepalive=100)


def test_a_unix_socket_is_not_tcp() -> None:
    """Nobody who has to notice a drain looks at it from another machine."""

    async def test(site: Site) -> None:
        assert site.server.is_tcp
        with socket.socket(socket.AF_UNIX) as unix:
            plain = Bound.__new__(Bound)
            plain.sock = unix
            assert not Server(site.context, [plain]).is_tcp
            assert Server(site.context, [plain, site.bound]).is_tcp
        site.context.connections.changed = site.server._closed

    serve(test)
