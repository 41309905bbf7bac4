"""What the kernel says of a connection, asked on real sockets."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import pytest

from hybridworker.connection.kernel import hung_up, shut_down, unacknowledged

Pair = tuple[socket.socket, socket.socket]

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux")


@pytest.fixture
def unix() -> Iterator[Pair]:
    """Our end and the peer's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def tcp() -> Iterator[Pair]:
    """Our end and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as theirs:
        ours, _ = listener.accept()
        with ours:
            yield ours, theirs


@linux
def test_a_unix_socket_tells_a_full_close_from_a_half_one(unix: Pair) -> None:
    """POLLHUP comes when both directions are closed."""
    ours, theirs = unix
    assert not hung_up(ours.fileno())
    theirs.shutdown(socket.SHUT_WR)
    assert not hung_up(ours.fileno())
    theirs.close()
    assert hung_up(ours.fileno())


@linux
def test_tcp_tells_of_a_close_when_something_was_sent(tcp: Pair) -> None:
    """Before that, closed and half-closed are the same; what is sent to a closed peer is answered with a RST."""
    ours, theirs = tcp
    theirs.close()
    assert ours.recv(1) == b""
    assert not hung_up(ours.fileno())
    ours.send(b"x")
    deadline = 1000
    while not hung_up(ours.fileno()):  # over loopback the answer is there at once
        deadline -= 1
        assert deadline


@linux
def test_what_the_peer_has_not_taken_is_counted(unix: Pair) -> None:
    """In bytes of the kernel, which has its own measure on a unix socket."""
    ours, theirs = unix
    assert unacknowledged(ours.fileno()) == 0
    ours.send(b"x" * 1000)
    assert unacknowledged(ours.fileno()) >= 1000
    theirs.recv(1000)
    assert unacknowledged(ours.fileno()) == 0


def test_a_connection_ends_although_others_have_it_open(tcp: Pair) -> None:
    """What was sent before arrives, and the descriptor stays open."""
    ours, theirs = tcp
    other = os.dup(ours.fileno())
    try:
        ours.send(b"last words")
        shut_down(ours.fileno())
        assert theirs.recv(100) == b"last words"
        assert theirs.recv(100) == b""
        shut_down(ours.fileno())  # a second time does no harm
        assert ours.fileno() >= 0
        assert os.fstat(ours.fileno())
    finally:
        os.close(other)


def test_a_connection_that_is_gone_is_no_error() -> None:
    """Its transport gives -1 for a descriptor; one that is no socket tells nothing."""
    shut_down(-1)
    assert not hung_up(-1)
    assert unacknowledged(-1) == 0
    with open(os.devnull, "rb") as null:
        assert unacknowledged(null.fileno()) == 0
