"""Certificates: what is looked at, what takes the place of what, and when a certificate ends."""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hybridworker.connection.context import WorkerContext
from hybridworker.errors import BootFailed
from hybridworker.process import certificates as module
from hybridworker.process.boot import identify, read_certificate
from hybridworker.process.certificates import DAY, INTERVAL, Certificates, expiry
from hybridworker.process.server import Server
from tests.fakes import FakeLog
from tests.harness import HELLO, application, make_settings

AUTHORITY = trustme.CA()
SOON = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(days=3, hours=1)


def issue(folder: Path, name: str = "server.pem", not_after: datetime.datetime | None = None) -> Path:
    """A certificate with its key, in one file."""
    path = folder / name
    issued = AUTHORITY.issue_cert("localhost", not_after=not_after)
    issued.private_key_and_cert_chain_pem.write_to_path(path)
    return path


class Case:
    """The certificates of a worker that serves nobody."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop, **settings: Any) -> None:
        self.path = settings.setdefault("certfile", str(folder / "server.pem"))
        self.context = WorkerContext(
            application=application(HELLO),
            settings=make_settings(keyfile=None, **settings),
            loop=loop,
            log=FakeLog(),
            server_cert=read_certificate(self.path),
        )
        self.log: Any = self.context.log
        self.first = self._build()
        self.server = Server(self.context, [], self.first)
        self.made: list[ssl.SSLContext] = []
        self.certificates = Certificates(self.context, self.server, self.build, identify(self.context.settings))

    def _build(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path)
        return context

    def build(self) -> ssl.SSLContext:
        self.made.append(self._build())
        return self.made[-1]

    @property
    def used(self) -> ssl.SSLContext:
        context: ssl.SSLContext = self.server.tls["ssl"]
        return context


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def case(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> Case:
    issue(tmp_path)
    return Case(tmp_path, loop)


def test_nothing_is_loaded_while_nothing_changes(case: Case) -> None:
    """Whoever asks."""
    case.certificates.look()
    case.certificates.tick(case.context.loop.time() + 10 * INTERVAL)
    assert case.made == [] and case.used is case.first
    assert case.log.lines == []


def test_the_tick_looks_once_a_minute(case: Case, tmp_path: Path) -> None:
    """A new context is used, and shown in scopes, and the line names the end of the certificate."""
    now = case.context.loop.time()
    old = case.context.server_cert
    case.certificates.tick(now + 0.1)
    issue(tmp_path, not_after=datetime.datetime(2049, 5, 6, 7, 8, tzinfo=datetime.UTC))
    case.certificates.tick(now + INTERVAL - 1)
    assert case.used is case.first
    case.certificates.tick(now + INTERVAL + 1)
    assert [case.used] == case.made
    assert case.context.server_cert == read_certificate(case.path) != old
    (line,) = case.log.at("info")
    assert line.endswith(
        f"new connections get the certificate in {case.path}, which is valid until 2049-05-06 07:08 UTC"
    )
    case.certificates.tick(now + 3 * INTERVAL)
    assert len(case.made) == 1


def test_symbolic_links_are_followed(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    """As Kubernetes swaps a whole folder, with the same sizes and times."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        os.utime(issue(tmp_path / name), (1, 1))
    (tmp_path / "current").symlink_to("one")
    case = Case(tmp_path, loop, certfile=str(tmp_path / "current" / "server.pem"))
    (tmp_path / "new").symlink_to("two")
    os.replace(tmp_path / "new", tmp_path / "current")
    case.certificates.look()
    assert [case.used] == case.made


def locked(pem: bytes) -> bytes:
    """The key in ``pem``, behind a password."""
    key = serialization.load_pem_private_key(pem, None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize("how", ["garbage", "half", "missing", "locked", "another key"])
def test_what_cannot_be_loaded_is_warned_of_once(case: Case, tmp_path: Path, how: str) -> None:
    """The old one stays; the next change is looked at again."""
    path = Path(case.path)
    good = path.read_bytes()
    chain = good[good.index(b"-----BEGIN CERTIFICATE") :]
    other = issue(tmp_path, "other.pem").read_bytes()
    contents = {
        "garbage": b"no certificate\n",
        "half": good[: len(good) // 2],
        "locked": locked(good) + chain,
        "another key": other[: other.index(b"-----BEGIN CERTIFICATE")] + chain,
    }
    if how in contents:
        path.write_bytes(contents[how])
    else:
        path.unlink()
    for _ in range(3):
        case.certificates.look()
    assert case.made == [] and case.used is case.first
    (line,) = case.log.at("warning")
    assert line.startswith("The TLS files have changed, and the old ones stay in use: certfile=")
    issue(tmp_path)
    case.certificates.look()
    assert [case.used] == case.made


def test_authorities_are_looked_at(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    """One that was taken away is in the old context only."""
    issue(tmp_path)
    authorities = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(authorities)
    case = Case(tmp_path, loop, ca_certs=str(authorities))
    trustme.CA().cert_pem.write_to_path(authorities)
    case.certificates.look()
    assert [case.used] == case.made


def test_a_file_that_changes_amid_the_look(case: Case, tmp_path: Path) -> None:
    """It was good a moment ago: the old one stays."""

    def fails() -> ssl.SSLContext:
        raise BootFailed("changed again", 3)

    issue(tmp_path)
    case.certificates.build = fails
    case.certificates.look()
    assert case.used is case.first
    assert len(case.log.at("warning")) == 1


def test_the_end_is_warned_of_once_a_day(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    """From a week before it on, and afterwards."""
    issue(tmp_path, not_after=SOON)
    case = Case(tmp_path, loop)
    now = loop.time()
    for seconds in (0.0, 1.0, DAY - 1, DAY + 1):
        case.certificates.tick(now + seconds)
    lines = case.log.at("warning")
    assert lines == [f"The certificate in {case.path} expires on {SOON:%Y-%m-%d %H:%M} UTC, in 4 day(s): renew it"] * 2
    issue(tmp_path, not_after=SOON - datetime.timedelta(days=30))
    case.certificates.look()
    case.certificates.tick(now + DAY + 2)
    assert case.log.at("warning")[2].startswith(f"The certificate in {case.path} has expired on ")


def test_the_end_is_read_without_another_library() -> None:
    """Before 2050 in one form of time, after it in another."""
    for year in (2031, 2049, 2051):
        end = datetime.datetime(year, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
        pem = AUTHORITY.issue_cert("localhost", not_after=end).cert_chain_pems[0].bytes()
        assert x509.load_pem_x509_certificate(pem).not_valid_after_utc == end
        assert expiry("comments before it\n" + pem.decode()) == end


@pytest.mark.parametrize("pem", [None, "", "garbage", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"])
def test_an_end_that_cannot_be_read_is_none(pem: str | None) -> None:
    """It is only said where it is known."""
    assert expiry(pem) is None


def test_a_week_is_enough_notice() -> None:
    """What renews them by itself does so a month before."""
    assert module.NOTICE == 7
