"""Boot: the versions, the certificate, and which setting is at fault where TLS cannot begin."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from hybridworker.process.boot import explain_tls, read_certificate, versions
from tests.harness import make_settings

AUTHORITY = trustme.CA()
SERVER = AUTHORITY.issue_cert("localhost")
CLIENT = AUTHORITY.issue_cert("client.example")


def test_the_versions_for_the_boot_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The loop that is used, and whether there is a WebSocket implementation."""
    folder = tmp_path / "websockets-15.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: websockets\nVersion: 15.0\n\nVersion: of the text\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert re.fullmatch(r"uvloop [\d.]+, httptools [\d.]+, websockets 15\.0, Python 3\.\d+\.\S+", versions("auto"))
    monkeypatch.setattr(sys, "path", [])
    assert re.fullmatch(r"asyncio, httptools [\d.]+, no websockets, Python 3\.\d+\.\S+", versions("asyncio"))


def test_the_certificate_is_read_where_there_is_a_file(tmp_path: Path) -> None:
    """A hook may have it from somewhere else, or in another form."""
    (tmp_path / "cert").write_text("PEM")
    (tmp_path / "binary").write_bytes(b"\xff")
    assert read_certificate(str(tmp_path / "cert")) == "PEM"
    assert read_certificate(str(tmp_path / "binary")) is None
    assert read_certificate(str(tmp_path / "missing")) is None
    assert read_certificate(None) is None


# -- why there is no context


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with good files and bad ones."""
    SERVER.private_key_pem.write_to_path(tmp_path / "key")
    SERVER.cert_chain_pems[0].write_to_path(tmp_path / "chain")
    CLIENT.private_key_pem.write_to_path(tmp_path / "other")
    (tmp_path / "nonsense").write_text("nonsense\n")
    key = serialization.load_pem_private_key(SERVER.private_key_pem.bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    (tmp_path / "locked").write_bytes(pem)
    (tmp_path / "folder").mkdir()
    return tmp_path


def explained(files: Path, **settings: str) -> str | None:
    """The line for these settings, without the name of the folder."""
    names = {name: value if name == "ciphers" else str(files / value) for name, value in settings.items()}
    nothing = dict.fromkeys(("certfile", "keyfile", "ca_certs", "ciphers"))
    line = explain_tls(make_settings(**{**nothing, **names}))
    return None if line is None else line.replace(f"{files}/", "")


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"certfile": "nonsense", "keyfile": "nonsense"}, "certfile='nonsense' keyfile='nonsense'"),
        ({"certfile": "nonsense"}, "certfile='nonsense' keyfile=None"),
        ({"certfile": "folder", "keyfile": "key"}, "certfile='folder' keyfile='key'"),
        ({"certfile": "chain"}, "certfile='chain' keyfile=None"),
        ({"certfile": "chain", "keyfile": "other"}, "certfile='chain' keyfile='other'"),
        ({"certfile": "chain", "keyfile": "locked"}, "certfile='chain' keyfile='locked'"),
        ({"certfile": "chain", "keyfile": "absent"}, "certfile='chain' keyfile='absent'"),
        ({"keyfile": "key"}, "certfile=None keyfile='key'"),
    ],
)
def test_a_chain_that_cannot_be_loaded_is_one_line(files: Path, settings: dict[str, str], shown: str) -> None:
    """With both settings, because either may be at fault; nobody is asked for a password."""
    line = explained(files, **settings)
    assert line is not None
    assert line.startswith(f"{shown} cannot be loaded (")
    assert line.endswith("): certfile holds a PEM certificate chain, keyfile its key")
    assert "_ssl.c" not in line and "\n" not in line


def test_what_else_a_context_is_made_of_is_told_apart(files: Path) -> None:
    """None where all is well: then the fault is not in the settings."""
    good = {"certfile": "chain", "keyfile": "key"}
    line = explained(files, **good, ca_certs="nonsense")
    assert line is not None and line.startswith("ca_certs='nonsense' cannot be loaded (")
    line = explained(files, **good, ciphers="nonsense")
    assert line is not None and line.startswith("ciphers='nonsense' cannot be loaded (No cipher can be selected.): ")
    assert explained(files, **good) is None
    assert explained(files, **good, ca_certs="chain", ciphers="ECDHE+AESGCM") is None
