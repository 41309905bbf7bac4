"""
Other people's servers for the end-to-end tests: nginx, HAProxy, Redis, on loopback.

:func:`found` skips a test, with the reason, where a program is not installed.
:class:`Program` is one that runs: in a process group of its own, its output in a file, its
readiness observed, ended with the test.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.e2e.client import Client
from tests.e2e.harness import DEADLINE


def found(name: str, package: str | None = None) -> str:
    """The path of a program; skips the test where it is missing."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install {package or name})")
    return path


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Program:
    """One program that listens on ``port``; ``argv`` keeps it in the foreground."""

    def __init__(self, argv: Sequence[str], log: Path, port: int) -> None:
        self.port = port
        self.log_path = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                argv, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )

    def log(self) -> str:
        """What it has printed."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait until ``condition()`` is true."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            ended = self.process.poll() is not None
            assert not ended and time.monotonic() < deadline, f"waited for {what}\n{self.log()}"
            time.sleep(0.01)

    def wait_log(self, pattern: str) -> None:
        """Wait until it has printed something."""
        self.wait_for(lambda: re.search(pattern, self.log()), repr(pattern))

    def wait_ready(self) -> Program:
        """Wait until it takes connections."""

        def connects() -> bool:
            try:
                socket.create_connection(("127.0.0.1", self.port), DEADLINE).close()
            except ConnectionRefusedError:
                return False
            return True

        self.wait_for(connects, f"{self.process.args!r} to listen")
        return self

    def connect(self) -> Client:
        """A raw client."""
        return Client(socket.create_connection(("127.0.0.1", self.port), DEADLINE), DEADLINE)

    def close(self) -> None:
        """End it, and whatever it has started."""
        try:
            if self.process.poll() is None:
                self.process.terminate()
                self.process.wait(DEADLINE)
        finally:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # the usual case: nobody is left
            self.process.wait()


class Programs:
    """Starts programs, each with a folder for its files; what the ``programs`` fixture gives to a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Program] = []

    def __call__(self, argv: Sequence[str], port: int) -> Program:
        """Start a program that will listen on ``port``, and wait until it does."""
        program = Program(argv, self.folder / f"log{len(self.started)}", port)
        self.started.append(program)
        return program.wait_ready()

    def close(self) -> None:
        """End them, last one first."""
        for program in reversed(self.started):
            program.close()

    def nginx(self, site: str, port: int) -> Program:
        """nginx with the contents of a file for ``conf.d``."""
        path = self.nginx_conf(site)
        return self([found("nginx"), "-c", str(path), "-p", str(self.folder)], port)

    def nginx_conf(self, site: str) -> Path:
        """A main configuration around a file for ``conf.d``, with every path inside of our folder."""
        (self.folder / "site.conf").write_text(site)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"  {kind}_temp_path {self.folder}/{kind};\n" for kind in kinds)
        user = "user root;\n" if os.getuid() == 0 else ""  # else its processes may not enter the folder
        path = self.folder / "nginx.conf"
        path.write_text(
            f"{user}daemon off;\nworker_processes 1;\npid {self.folder}/nginx.pid;\nerror_log stderr;\n"
            f"events {{ worker_connections 256; }}\n"
            f"http {{\n  access_log off;\n{paths}  include {self.folder}/site.conf;\n}}\n"
        )
        return path

    def haproxy(self, configuration: str, port: int) -> Program:
        """HAProxy with a whole configuration."""
        path = self.folder / "haproxy.cfg"
        path.write_text(configuration)
        return self([found("haproxy"), "-db", "-f", str(path)], port)

    def redis(self) -> Program:
        """Redis with an empty database that is never written to a disk."""
        port = free_port()
        argv = [found("redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
        return self(argv, port)
