"""The real applications of the benchmark answer what their scenarios expect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.scenarios import chosen
from tests.benchmarks.servers import ROOT

#: Ask an application for a page as its scenario does, and print status and length. In a process of its own: Django
#: has one configuration for each.
ASK = """
import asyncio, importlib, sys
import httpx
from tests.benchmarks.scenarios import chosen

scenario, = chosen([sys.argv[1]])
module, _, name = scenario.app.partition(":")
app = getattr(importlib.import_module(module), name)
headers = dict(field.split(": ") for field in scenario.headers)
url = f"http://localhost{scenario.path}"

async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        return await client.get(url, headers=headers)

if scenario.interface == "asgi":
    response = asyncio.run(ask())
else:
    response = httpx.Client(transport=httpx.WSGITransport(app)).get(url, headers=headers)
print(response.status_code, len(response.content))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """That of the applications, with the database of the shop."""
    files = tmp_path_factory.mktemp("files")
    environment = {**os.environ, "BENCHMARK_FILES": str(files), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.benchmarks.frameworks.with_django_shop"]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=60)
    assert Path(files, "shop.sqlite3").exists()
    return environment


@pytest.mark.parametrize("name", ["shop-fastapi", "shop-flask", "shop-django-wsgi", "shop-django-asgi"])
def test_the_shops_answer_what_is_expected(name: str, environment: dict[str, str]) -> None:
    """The customer is known, the query is valid, and the page is as long as the scenario says."""
    command = [sys.executable, "-c", ASK, name]
    answer = subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=60, capture_output=True, text=True)
    (scenario,) = chosen([name])
    assert answer.stdout.split() == ["200", str(scenario.length)]
