"""
Which code a figure speaks of, and an earlier revision of it to measure beside.

The code is the git tree of the package, as ``git rev-parse REVISION:hybridworker`` names it, but made from the files
themselves: what is not committed counts, and a commit of anything else changes nothing.
"""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from tests.benchmarks.scenarios import Scenario
from tests.benchmarks.servers import BASE, BASELINE, ROOT, SERVERS, Server


class RevisionError(Exception):
    """There is no such revision, or nothing to measure in it."""


def code_of(package: Path = ROOT / BASELINE) -> str:
    """The name of a folder's git tree, without what Python leaves there (git-hash-object(1) has the format)."""
    entries = []
    for path in package.iterdir():
        if path.is_dir():
            if path.name != "__pycache__" and any(found.is_file() for found in path.rglob("*")):
                entries.append((f"{path.name}/", b"40000", bytes.fromhex(code_of(path))))
        elif path.suffix != ".pyc":
            mode = b"100755" if path.stat().st_mode & 0o100 else b"100644"
            entries.append((path.name, mode, _object(b"blob", path.read_bytes()).digest()))
    # git sorts a folder as if its name ended with a slash.
    listed = sorted(entries)
    tree = b"".join(b"%b %b\0%b" % (mode, name.rstrip("/").encode(), digest) for name, mode, digest in listed)
    return _object(b"tree", tree).hexdigest()


def _object(kind: bytes, content: bytes) -> hashlib._Hash:
    return hashlib.sha1(b"%b %d\0" % (kind, len(content)) + content, usedforsecurity=False)


def _git(*arguments: str) -> bytes:
    """What git prints; CalledProcessError where it fails, :class:`RevisionError` where it is not there."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, timeout=60).stdout
    except FileNotFoundError:
        raise RevisionError("git is not installed") from None


def current() -> str:
    """The commit that is checked out, with a plus where the package has changed since; empty without git."""
    try:
        commit = _git("rev-parse", "--short=10", "HEAD").decode().strip()
        unchanged = _git("rev-parse", f"HEAD:{BASELINE}").decode().strip() == code_of()
    except (RevisionError, subprocess.CalledProcessError):
        return ""
    return commit if unchanged else f"{commit}+"


@dataclass(frozen=True, slots=True)
class Base:
    """An earlier revision: its commit, its package's tree, and the server that is measured as one more."""

    commit: str
    code: str
    server: Server

    @classmethod
    def find(cls, revision: str) -> Base:
        """Look a revision up; :class:`RevisionError` where it has no package."""
        names = []
        for name, absence in ((f"{revision}^{{commit}}", "no such revision"), (f"{revision}:{BASELINE}", "no package")):
            try:
                names.append(_git("rev-parse", "--verify", "--end-of-options", name).decode().strip())
            except subprocess.CalledProcessError:
                raise RevisionError(f"{revision}: {absence}") from None
        commit, code = names[0][:10], names[1]
        return cls(commit, code, SERVERS[BASE])

    def exported(self, directory: Path) -> Base:
        """The same with its package in a directory, where its server finds it before ours."""
        archive = _git("archive", "--format=tar", self.commit, BASELINE)
        directory.mkdir()
        subprocess.run(["tar", "-x"], cwd=directory, input=archive, check=True, capture_output=True, timeout=60)
        return replace(self, server=replace(self.server, path=(directory,)))

    def lacks(self, scenario: Scenario) -> str | None:
        """What of a scenario this revision cannot do yet, or nothing."""
        (directory,) = self.server.path
        text = "\n".join(path.read_text() for path in (directory / BASELINE).rglob("*.py"))
        if scenario.hybrid and "class Hybrid" not in text:
            return "no Hybrid"
        if scenario.http2 and not (directory / BASELINE / "http2").exists():
            return "no HTTP/2"
        names = [setting.partition("=")[0] for setting in scenario.settings]
        # Variables are listed in lower case, without their prefix, or spelt out.
        if missing := [name for name in names if name not in text and f'"{name.lower()}"' not in text]:
            return f"no HYBRIDWORKER_{missing[0]}"
        return None
