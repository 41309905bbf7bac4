"""ClientSocket: the application's end of the socket pair."""

from __future__ import annotations

import errno
import gc
import os
import socket
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from hybridworker.errors import ClientDisconnected, WSGIError
from hybridworker.wsgi.clientsocket import ClientSocket, socket_pair

PEER, OWN = ("192.0.2.1", 40000), ("192.0.2.2", 8000)


def test_it_blocks_and_names_the_addresses_of_the_connection() -> None:
    """As the client's socket does; the other end is the loop's."""
    ours, client = socket_pair(PEER, OWN)
    with ours, client:
        assert client.getblocking()
        assert not ours.getblocking()
        assert client.getpeername() == PEER
        assert client.getsockname() == OWN


def test_it_blocks_whatever_is_the_default() -> None:
    """As what gunicorn accepts; an application may have set a time-out for its own connections."""
    socket.setdefaulttimeout(0.01)
    try:
        ours, client = socket_pair(PEER, OWN)
    finally:
        socket.setdefaulttimeout(None)
    with ours, client:
        assert client.gettimeout() is None
        assert os.get_blocking(client.fileno())


def test_a_duplicate_names_the_same_addresses() -> None:
    """Some libraries keep one."""
    ours, client = socket_pair(PEER, OWN)
    with ours, client, client.dup() as copy:
        assert copy.getpeername() == PEER
        assert copy.getsockname() == OWN


def test_options_of_tcp_are_taken() -> None:
    """They would be an error of a unix socket; others act."""
    ours, client = socket_pair(None, None)
    with ours, client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 16)
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        assert client.getsockopt(socket.IPPROTO_IP, socket.IP_TOS, 4) == b"\0\0\0\0"
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, b"\0" * 16)
        assert client.getpeername() == client.getsockname() == ""


@pytest.mark.parametrize(
    "write",
    [
        lambda client: client.send(b"x"),
        lambda client: client.sendall(b"x"),
        lambda client: client.sendmsg([b"x"]),
        lambda client: client.makefile("wb", buffering=0).write(b"x"),
    ],
)
def test_it_knows_that_something_was_written(write: Callable[[ClientSocket], Any]) -> None:
    """Whatever the application writes with."""
    ours, client = socket_pair(None, None)
    with ours, client:
        assert not client.used
        write(client)
        assert client.used
        assert ours.recv(10) == b"x"


def test_a_socket_that_nobody_closes_is_closed_with_the_object() -> None:
    """Without the warning that Python gives of its own sockets."""
    ours, client = socket_pair(None, None)
    fd = client.fileno()
    with ours, warnings.catch_warnings():
        warnings.simplefilter("error")
        del client
        gc.collect()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_what_an_application_raises_by_its_end_is_excused() -> None:
    """Not what is a fault of its own."""
    ours, client = socket_pair(None, None)
    with ours, client:
        missing = WSGIError("start_response() was never called")
        ended = WSGIError("the application raised SystemExit")
        ended.__cause__ = SystemExit()
        fault, other = ValueError(), OSError(errno.ENOSPC, "full")
        assert client.excused(missing) is missing
        for exc in StopIteration(), BrokenPipeError(errno.EPIPE, "x"), ConnectionResetError(errno.ECONNRESET, "x"):
            assert isinstance(client.excused(exc), ClientDisconnected)
        client.used = True
        assert isinstance(client.excused(missing), ClientDisconnected)
        for own in ended, fault, other:
            assert client.excused(own) is own


def test_without_descriptors_there_is_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the system's."""

    def exhausted(*args: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        socket_pair(None, None)
