"""Accepted: what is known of an accepted socket without asking the kernel again."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from hybridworker.connection.accepted import shared_name


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_socket_with_one_address_gives_it_to_all_connections(host: str) -> None:
    """Address and port, as the connections themselves would say."""
    try:
        listening = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as exc:
        pytest.skip(f"there is no {host} here: {exc}")
    with listening, socket.create_connection(listening.getsockname()[:2]):
        accepted, _ = listening.accept()
        with accepted:
            assert shared_name(listening) == accepted.getsockname()


def test_a_unix_socket_gives_its_path(tmp_path: Path) -> None:
    """To all of its connections."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "sock"))
        assert shared_name(listening) == str(tmp_path / "sock")


def test_connections_to_any_address_have_each_their_own() -> None:
    """The host may have several."""
    with socket.create_server(("0.0.0.0", 0)) as listening:
        assert shared_name(listening) is None


@pytest.mark.skipif(not hasattr(socket, "IP_TRANSPARENT") or os.getuid() != 0, reason="root alone may, on Linux")
def test_connections_of_a_transparent_proxy_have_each_their_own() -> None:
    """They were made to another address than the one that the socket is bound to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        try:
            listening.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
        except OSError as exc:
            pytest.skip(f"not even root may here: {exc}")
        assert shared_name(listening) is None
