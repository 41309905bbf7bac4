"""
Every example, started by the command in its own header and exercised.

The command is read from the header, so that it cannot be wrong; only the port and the
control socket are added.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import signal
from pathlib import Path

import pytest

from tests.e2e.harness import ROOT, Gunicorn, Servers, arguments

pytestmark = pytest.mark.e2e

EXAMPLES = ROOT / "examples"


def header(path: Path) -> str:
    """The docstring of an example."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def command(path: Path) -> list[str]:
    """The command in the header of an example."""
    commands = re.findall(r"^    (gunicorn .*)$", header(path), re.MULTILINE)
    assert len(commands) == 1, f"{path} gives {len(commands)} commands"
    return shlex.split(commands[0])[1:]


def start(gunicorn: Servers, name: str) -> Gunicorn:
    """Run the command of an example, in the folder of the project, on a free port."""
    *options, app = command(EXAMPLES / name)
    argv = arguments(app, [*options, "--bind", "127.0.0.1:0"], "hybridworker.Worker", 1)
    return gunicorn.command(argv, ROOT)


def upload(server: Gunicorn, path: str) -> dict[str, object]:
    """Post a file in a form; returns the JSON of the answer."""
    body = (
        b'--cut\r\nContent-Disposition: form-data; name="file"; filename="notes.txt"\r\n\r\n' + b"n" * 100_000
    ) + b"\r\n--cut--\r\n"
    response = server.request(path, "POST", body, "Content-Type: multipart/form-data; boundary=cut\r\n")
    answer: dict[str, object] = json.loads(response.body)
    return answer


NUMBERS = "".join(f"{number}\n" for number in range(10))


def test_every_example_has_a_command_and_is_tested() -> None:
    """One command, which is all that one has to type, and it is started by a test, here or in a file of its own."""
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    commanded = [path for path in EXAMPLES.rglob("*.py") if "    gunicorn " in header(path)]
    assert len(commanded) > 10
    for path in commanded:
        assert command(path)
        assert "pip install" not in re.sub(r"``.*?``", "", header(path))
        names = f'"{path.relative_to(EXAMPLES)}"', f'"{path.stem}:app"'
        assert any(name in tests for name in names), f"{path} is not tested"


def test_asgi(gunicorn: Servers) -> None:
    server = start(gunicorn, "asgi_app.py")
    assert server.request().text.startswith("Hello from ASGI")
    assert server.request("/count", "POST", b"x" * 200_000).text == "200000 bytes\n"
    assert server.request("/nothing").status == 404


def test_wsgi(gunicorn: Servers) -> None:
    server = start(gunicorn, "wsgi_app.py")
    assert server.request().text == "Hello from WSGI.\n"
    assert server.request("/count", "POST", b"x" * 200_000).text == "200000 bytes\n"
    assert server.request("/numbers").text == NUMBERS
    assert server.request("/nothing").status == 404


def test_starlette(gunicorn: Servers) -> None:
    server = start(gunicorn, "starlette_app.py")
    assert json.loads(server.request().body) == {"hello": "Starlette", "client": "127.0.0.1", "mails": []}
    assert server.request("/numbers").text == NUMBERS
    assert server.request("/mail", "POST").status == 202
    server.wait_for(lambda: json.loads(server.request().body)["mails"] == ["mail"], "the background task")


def test_fastapi(gunicorn: Servers) -> None:
    server = start(gunicorn, "fastapi_app.py")
    content = "Content-Type: application/json\r\n"
    assert server.request("/items", "POST", b'{"name": "tea", "price": 2.5}', content).status == 201
    assert server.request("/items", "POST", b'{"name": "tea"}', content).status == 422
    assert json.loads(server.request().body) == {"hello": "FastAPI", "items": 1}
    assert json.loads(server.request("/blocking").body) == {"hello": "thread"}
    assert server.request("/docs").status == 200


def test_flask(gunicorn: Servers) -> None:
    server = start(gunicorn, "flask_app.py")
    assert json.loads(server.request().body) == {"hello": "Flask", "client": "127.0.0.1"}
    assert upload(server, "/upload") == {"name": "notes.txt", "size": 100_000}
    assert server.request("/numbers").text == NUMBERS


def _django(server: Gunicorn, interface: str) -> None:
    assert 'name="csrfmiddlewaretoken"' in server.request("/form").text
    assert server.request("/form", "POST", b"name=Ada").status == 403
    for path, view in (("/", "sync"), ("/async", "async")):
        answer = json.loads(server.request(path).body)
        assert answer == {"hello": "Django", "interface": interface, "view": view}
    assert server.request("/numbers").text == NUMBERS
    assert upload(server, "/upload") == {"name": "notes.txt", "size": 100_000}


def test_django_by_asgi(gunicorn: Servers) -> None:
    _django(start(gunicorn, "django_project/project/asgi.py"), "ASGI")


def test_django_by_wsgi(gunicorn: Servers) -> None:
    _django(start(gunicorn, "django_project/project/wsgi.py"), "WSGI")


def test_server_sent_events(gunicorn: Servers) -> None:
    """Two events come, each when it is made; when the client leaves, and when the worker does, the loop ends."""
    server = start(gunicorn, "sse_app.py")
    assert "EventSource" in server.request().text
    with server.connect() as client:
        client.start("/events")
        status, _, headers = client.head()
        assert status == 200
        assert ("content-type", "text/event-stream") in headers
        assert client.chunk() == b"retry: 1000\n\n"
        assert client.chunk().startswith(b"data: 20")
        assert client.chunk().startswith(b"data: 20")
    server.wait_log("a client has left")
    with server.connect() as client:
        client.start("/events")
        assert client.head()[0] == 200
        assert client.chunk() == b"retry: 1000\n\n"
        server.signal(signal.SIGHUP)
        while client.chunk():  # an empty one is the last: it was ended, not cut
            pass
    server.wait_log("a stream has ended, because the worker leaves")
    server.wait_workers(lambda pids: len(pids) == 1, "the old worker to go")
    with server.connect() as client:
        client.start("/events")
        assert client.head()[0] == 200  # by the new worker


def test_files(gunicorn: Servers) -> None:
    """A file comes whole, by pathsend; what is outside the folder does not."""
    server = start(gunicorn, "files_app.py")
    expected = (EXAMPLES / "files_app.py").read_bytes()
    response = server.request("/files_app.py")
    assert (response.body, response.framing) == (expected, "length")
    head = server.request("/files_app.py", "HEAD")
    assert (head.header("Content-Length"), head.body) == (str(len(expected)), b"")
    for path in ("/../pyproject.toml", "/%2e%2e/pyproject.toml", "/nothing.txt", "/%00"):
        assert server.request(path).status == 404
    assert server.request("/files_app.py", "POST").status == 405


def test_websocket_chat(gunicorn: Servers) -> None:
    """Two people in the room hear each other; when one leaves, the other goes on."""
    client = pytest.importorskip("websockets.sync.client", reason="the extra hybridworker[websockets] is not installed")
    server = start(gunicorn, "websocket_chat.py")
    assert "new WebSocket" in server.request().text
    url = f"ws://127.0.0.1:{server.port}/chat"
    with client.connect(url, proxy=None) as one:
        with client.connect(url, proxy=None) as two:
            one.send("hello")
            assert (one.recv(), two.recv()) == ("hello", "hello")
            two.send("h\u00e9llo")
            assert (one.recv(), two.recv()) == ("h\u00e9llo", "h\u00e9llo")
        one.send("alone")
        assert one.recv() == "alone"


def test_the_configuration_file(gunicorn: Servers) -> None:
    """What ``make run`` uses: it names the worker, so the command need not, and writes an access line."""
    assert "--worker-class" not in command(EXAMPLES / "gunicorn.conf.py")
    server = start(gunicorn, "gunicorn.conf.py")
    assert server.request().text.startswith("Hello from ASGI")
    server.wait_log(r'"GET / HTTP/1\.1" 200')
