"""
``examples/deploy``: the very files, checked by the programs that read them, and run.

Only ports and paths are replaced, and each replacement must find what it replaces. What is
said in comments about times that fit each other is calculated here.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Client
from tests.e2e.harness import ROOT, Gunicorn, Servers
from tests.e2e.programs import Program, Programs, found, free_port

pytestmark = pytest.mark.e2e

EXAMPLES = ROOT / "examples"
DEPLOY = EXAMPLES / "deploy"
CONFIG = DEPLOY / "gunicorn.conf.py"

#: An application that shows its scope, with the configuration of the folder.
SHOWING = ("-c", str(CONFIG), "--graceful-timeout", "20")


def configured(name: str, **changes: str) -> str:
    """A file of the folder with parts replaced. ``changes`` are for readers; each is ``old -> new``."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for change in changes.values():
        old, _, new = change.partition(" -> ")
        assert old in text, f"{name} does not contain {old!r}"
        text = text.replace(old, new)
    return text


def settings() -> dict[str, Any]:
    """What ``gunicorn.conf.py`` sets."""
    return runpy.run_path(str(CONFIG))


def own() -> dict[str, str]:
    """The ``HYBRIDWORKER_*`` variables that it sets."""
    return dict(entry.split("=", 1) for entry in settings()["raw_env"])


def check(argv: list[str]) -> None:
    """Run a program that checks a configuration."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def seconds(pattern: str, text: str) -> float:
    """The number in a configuration."""
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None, f"{pattern!r} is not there"
    return float(match[1])


def shown(client: Client, headers: str = "") -> Any:
    """The scope of a request."""
    response = client.request("/scope", headers=headers)
    assert response.status == 200, response
    return json.loads(response.body)


def fields(scope: Any) -> dict[str, str]:
    return dict(scope["headers"])


# -- times that fit


def test_the_balancers_close_idle_connections_before_gunicorn_does() -> None:
    """Otherwise requests meet a connection that is being closed."""
    keepalive = settings()["keepalive"]
    assert seconds(r"^    keepalive_timeout (\d+)s;", configured("nginx.conf")) < keepalive
    assert seconds(r"pool-purge-delay (\d+)s", configured("haproxy.cfg")) < keepalive


@pytest.mark.parametrize(
    ("name", "interval", "probes"),
    [
        ("haproxy.cfg", r"inter (\d+)s", 2),
        ("http2-haproxy.cfg", r"inter (\d+)s", 3),
        ("http2-traefik.yaml", r"interval: (\d+)s", 2),
    ],
)
def test_balancers_notice_within_the_drain_delay(name: str, interval: str, probes: int) -> None:
    """The probes that it takes fit into the delay of the file's header, and it into half of the graceful timeout."""
    delay = seconds(r"^#     export HYBRIDWORKER_DRAIN_DELAY=(\d+)$", configured(name))
    assert seconds(interval, configured(name)) * probes < delay
    assert delay <= settings()["graceful_timeout"] / 2


def test_only_balancers_that_look_are_waited_for() -> None:
    """A variable of the environment wins over the shared file, where there is no delay; nginx and systemd set none."""
    assert own()["HYBRIDWORKER_DRAIN_DELAY"] == "0"
    for name in ("nginx.conf", "app.service", "compose.yaml"):
        assert not re.search(r"HYBRIDWORKER_DRAIN_DELAY\W+[1-9]", configured(name))


def test_a_reload_needs_less_memory_than_is_allowed() -> None:
    """Workers are replaced before the kernel kills: all of them, and twice as many where HUP is used."""
    unit = configured("app.service")
    workers, rss = seconds(r"WEB_CONCURRENCY=(\d+)$", unit), seconds(r"HYBRIDWORKER_MAX_RSS=(\d+)$", unit)
    assert 2 * workers * rss < 1024 * seconds(r"^MemoryMax=(\d+)G$", unit)
    compose = configured("compose.yaml")
    workers, rss = seconds(r'WEB_CONCURRENCY: "(\d+)"$', compose), seconds(r'HYBRIDWORKER_MAX_RSS: "(\d+)"$', compose)
    assert workers * rss < seconds(r"mem_limit: (\d+)m$", compose)
    docker = configured("Dockerfile")
    assert seconds(r"HYBRIDWORKER_MAX_RSS=(\d+) app$", docker) < seconds(r"--memory (\d+)m ", docker)


def checked(folder: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """``check`` as the unit does it before a reload, with the configuration and an application of ``folder``."""
    (command,) = re.findall(r"^ExecReload=(\S+/python .*)$", configured("app.service"), re.MULTILINE)
    program, *argv = shlex.split(command.replace("/srv/app", str(folder)))
    assert program == "/srv/venv/bin/python"
    path = os.pathsep.join([str(ROOT), str(folder)])
    return subprocess.run(
        [sys.executable, *argv],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A folder as /srv/app: the configuration and an application."""
    shutil.copy(CONFIG, tmp_path)
    shutil.copy(EXAMPLES / "asgi_app.py", tmp_path)
    return tmp_path


def test_a_reload_is_refused_for_what_cannot_boot(served: Path) -> None:
    """By the exit code of the first ExecReload, with the reason; the second one is HUP."""
    first, second = re.findall(r"^ExecReload=(.*)$", configured("app.service"), re.MULTILINE)
    assert second == "/bin/kill -HUP $MAINPID"
    assert first.split()[-1] == re.findall(r"^ExecStart=.* (\S+)$", configured("app.service"), re.MULTILINE)[0]
    assert checked(served).returncode == 0
    wrong = checked(served, {"HYBRIDWORKER_DRAIN_DELAY": "ten"})
    assert wrong.returncode != 0
    assert "HYBRIDWORKER_DRAIN_DELAY" in wrong.stdout
    with (served / CONFIG.name).open("a") as config:
        config.write("keepalive = = 5\n")
    assert checked(served).returncode != 0
    shutil.copy(CONFIG, served)
    with (served / "asgi_app.py").open("a") as app:
        app.write("import no_such_module\n")
    wrong = checked(served)
    assert wrong.returncode != 0
    assert "no_such_module" in wrong.stdout


def test_what_the_check_does_not_prove(served: Path) -> None:
    """It does not run lifespan startup, so an application that fails there passes."""
    (served / "asgi_app.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    done = checked(served)
    assert (done.returncode, "Lifespan startup was not run" in done.stdout) == (0, True)


def test_what_is_commented_out_in_the_shared_file(served: Path) -> None:
    """Every variable that one may switch on is taken, with its value."""
    text = configured("gunicorn.conf.py")
    (served / CONFIG.name).write_text(
        re.sub(r'^    # ("HYBRIDWORKER_\w+": ".*",)$', r"    \1", text, flags=re.MULTILINE)
    )
    project = served / "project"
    project.mkdir()
    shutil.copy(EXAMPLES / "asgi_app.py", project / "asgi.py")
    with (project / "asgi.py").open("a") as app:
        app.write("application = app\n")
    switched = runpy.run_path(str(served / CONFIG.name))["own"]
    assert len(switched) > len(own()) + 4
    done = checked(served)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    for name, value in switched.items():
        if name.removeprefix("HYBRIDWORKER_") not in ("WEBSOCKET", "FORWARDED_CLIENT"):
            assert re.fullmatch(r"/?\w+", value)
    assert "project.asgi:application" in done.stdout


def test_nobody_kills_before_the_graceful_timeout_is_over() -> None:
    """systemd and Docker wait for longer."""
    grace = settings()["graceful_timeout"]
    assert seconds(r"^TimeoutStopSec=(\d+)$", configured("app.service")) > grace
    assert seconds(r"--stop-timeout (\d+)", configured("Dockerfile")) > grace
    assert seconds(r"stop_grace_period: (\d+)s", configured("compose.yaml")) > grace


# -- HTTP/2


def test_the_proxies_take_their_files_for_http2(programs: Programs, tmp_path: Path) -> None:
    """``nginx -t`` and ``haproxy -c``; Traefik's is YAML with a h2c server."""
    folder = ROOT / "examples" / "deploy"
    site = (folder / "http2-nginx.conf").read_text().replace("listen 80", f"listen 127.0.0.1:{free_port()}")
    check([found("nginx"), "-t", "-c", str(programs.nginx_conf(site))])
    (tmp_path / "haproxy.cfg").write_text((folder / "http2-haproxy.cfg").read_text())
    check([found("haproxy"), "-c", "-f", str(tmp_path / "haproxy.cfg")])
    yaml = pytest.importorskip("yaml")
    traefik = yaml.safe_load((folder / "http2-traefik.yaml").read_text())
    assert traefik["http"]["services"]["app"]["loadBalancer"]["servers"][0]["url"].startswith("h2c://")


def test_haproxy_by_http2_in_front(gunicorn: Servers, programs: Programs) -> None:
    """Requests arrive by HTTP/2, with the client's address and the scheme as HAProxy sees them; its probes pass."""
    pytest.importorskip("h2", reason="the extra [http2] is not installed")
    found("haproxy")
    text = configured("http2-haproxy.cfg")
    (command,) = re.findall(r"^#     gunicorn (-c .*) module:app$", text, re.MULTILINE)
    options = command.replace("gunicorn.conf.py", str(CONFIG)).replace("127.0.0.1:8000", "127.0.0.1:0").split()
    server = gunicorn("asgi:app", *options)
    port = free_port()
    changed = configured(
        "http2-haproxy.cfg",
        server=f"127.0.0.1:8000\n -> 127.0.0.1:{server.port}\n",
        port=f"bind :80\n -> bind 127.0.0.1:{port}\n",
    )
    programs.haproxy(changed, port)
    with elsewhere(port) as client:
        scope = shown(client, "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n")
    assert (scope["http_version"], scope["client"][0], scope["scheme"]) == ("2", "127.0.0.2", "http")
    for path in ("/health", "/%68ealth", "/metrics"):
        with elsewhere(port) as client:
            assert client.request(path).status == 403


# -- nginx


Two = Callable[..., tuple[Gunicorn, Gunicorn]]


@pytest.fixture
def two(gunicorn: Servers) -> Iterator[Two]:
    """Starts two instances, as two machines would be. They end by QUIT, which waits for no drain delay."""

    def start(*args: str, **env: str) -> tuple[Gunicorn, Gunicorn]:
        first, second = (gunicorn("asgi:app", *SHOWING, *args, env=env) for _ in range(2))
        return first, second

    yield start
    for server in gunicorn.started:
        assert server.stop(signal.SIGQUIT) == 0


def elsewhere(port: int) -> Client:
    """A client that is not 127.0.0.1."""
    return Client(socket.create_connection(("127.0.0.1", port), 30, source_address=("127.0.0.2", 0)), 30)


def nginx_site(one: int, other: int, port: int) -> str:
    """nginx.conf with these ports, and with its second server, which is a comment."""
    return configured(
        "nginx.conf",
        one=f"127.0.0.1:8000 -> 127.0.0.1:{one}",
        other=f"# server 127.0.0.1:8001 -> server 127.0.0.1:{other}",
        port=f"listen 80; -> listen 127.0.0.1:{port};",
    )


def test_nginx_takes_its_file(programs: Programs) -> None:
    """``nginx -t``."""
    check([found("nginx"), "-t", "-c", str(programs.nginx_conf(nginx_site(1, 2, free_port())))])


def test_nginx_in_front(two: Two, programs: Programs) -> None:
    """The client's address and scheme, one connection for many requests, health for the machine itself."""
    found("nginx")
    one, other = two(HYBRIDWORKER_METRICS_PATH="/metrics")
    port = free_port()
    nginx = programs.nginx(nginx_site(one.port, other.port, port), port)
    with nginx.connect() as client:
        scopes = [shown(client, "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n") for _ in range(8)]
        for scope in scopes:
            assert scope["client"][0] == "127.0.0.1"  # not what the client wrote
            assert scope["scheme"] == "http"
            assert fields(scope)["host"] == "localhost"  # as the client wrote it
            assert "connection" not in fields(scope) or fields(scope)["connection"] == ""
        assert {scope["server"][1] for scope in scopes} == {one.port, other.port}
        assert client.request("/health").text == "ok\n"
        assert client.request("/metrics").text.startswith("# HELP hybridworker_")
    with nginx.connect() as client:
        client.send("GET /scope HTTP/1.0\r\n\r\n")  # no Host, which HTTP/1.0 need not have
        assert client.response().status == 200
    for path in ("/health", "/%68ealth", "//health", "/x/../health", "/metrics", "/metrics?"):
        with elsewhere(port) as client:
            assert client.request(path).status == 403


def test_nginx_goes_to_the_other_when_one_leaves(two: Two, programs: Programs) -> None:
    """From TERM to the end of the process every request is answered, and after it."""
    found("nginx")
    one, other = two(HYBRIDWORKER_DRAIN_DELAY="1")
    port = free_port()
    nginx = programs.nginx(nginx_site(one.port, other.port, port), port)

    def pid() -> str:
        with nginx.connect() as client:
            response = client.request("/pid")
            assert response.status == 200
            return response.text

    assert len({pid() for _ in range(4)}) == 2
    one.signal(signal.SIGTERM)
    while one.process.poll() is None:
        pid()
    assert {pid() for _ in range(4)} == {str(worker) for worker in other.worker_pids()}
    assert one.wait() == 0


# -- HAProxy


def haproxy_cfg(one: int, other: int, port: int) -> str:
    """haproxy.cfg with these ports, and ten times as many probes."""
    return configured(
        "haproxy.cfg",
        one=f"127.0.0.1:8000 -> 127.0.0.1:{one}",
        other=f"127.0.0.1:8001 -> 127.0.0.1:{other}",
        port=f"bind :80\n -> bind 127.0.0.1:{port}\n",
        probes="inter 2s -> inter 200ms",
    )


def test_haproxy_takes_its_file(tmp_path: Path) -> None:
    """``haproxy -c``."""
    path = tmp_path / "haproxy.cfg"
    path.write_text(haproxy_cfg(1, 2, free_port()))
    check([found("haproxy"), "-c", "-f", str(path)])


def test_haproxy_in_front(two: Two, programs: Programs) -> None:
    """The client's address and port come by PROXY v2, whatever the client writes into X-Forwarded-For."""
    found("haproxy")
    one, other = two("--proxy-protocol", "v2")
    port = free_port()
    haproxy = programs.haproxy(haproxy_cfg(one.port, other.port, port), port)
    for _ in range(4):
        with haproxy.connect() as client:
            scope = shown(client, "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n")
            assert scope["client"] == list(client.socket.getsockname())
            assert scope["scheme"] == "http"
            assert "x-forwarded-for" not in fields(scope)
            assert scope["hybridworker.proxy"]["PROXY_PROTOCOL"] == "TCP4"
    with haproxy.connect() as client:
        assert client.request("/health").text == "ok\n"
    for path in ("/health", "/%68ealth", "/health?", "/metrics", "http://localhost/metrics"):
        with elsewhere(port) as client:
            assert client.request(path).status == 403


def test_haproxy_notices_the_drain(two: Two, programs: Programs) -> None:
    """Its probe sees 503 while the worker still accepts; no request is lost before, meanwhile or afterwards."""
    found("haproxy")
    one, other = two("--proxy-protocol", "v2", HYBRIDWORKER_DRAIN_DELAY="3")
    port = free_port()
    haproxy = programs.haproxy(haproxy_cfg(one.port, other.port, port), port)
    one.signal(signal.SIGTERM)
    down = re.compile(r"Server app/one is DOWN.*code: 503")
    while not down.search(haproxy.log()):
        assert one.process.poll() is None, f"it left before HAProxy noticed\n{haproxy.log()}{one.log()}"
        with haproxy.connect() as client:
            assert client.request("/pid").status == 200
    with haproxy.connect() as client:
        assert client.request("/pid").text in {str(pid) for pid in other.worker_pids()}
    assert one.wait() == 0


# -- systemd


def unit(name: str, folder: Path) -> Path:
    """A unit with the gunicorn of the tests."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    path = folder / name
    path.write_text(text.replace("/srv/venv/bin", str(Path(sys.executable).parent)))
    return path


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """``systemd-analyze verify`` knows every directive, and complains about none."""
    program = found("systemd-analyze", "systemd")
    units = [str(unit(name, tmp_path)) for name in ("app.service", "app.socket")]
    done = subprocess.run([program, "verify", *units], capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if "app.s" in line]
    assert (done.returncode, complaints) == (0, [])


def test_what_the_unit_starts(gunicorn: Servers, tmp_path: Path) -> None:
    """The command of ExecStart with a socket as systemd hands it over: it serves, and leaves the socket open."""
    text = (DEPLOY / "app.service").read_text(encoding="utf-8")
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    environment = dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE))
    program, *argv = shlex.split(command)
    assert program == "/srv/venv/bin/gunicorn"
    *argv, app = (argument.replace("/srv/app", str(DEPLOY)) for argument in argv)
    assert int(environment.pop("WEB_CONCURRENCY")) > 1  # it is written for what is under load
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        script = f'exec 3<&{fd}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        server = Gunicorn(
            [*argv, "--chdir", str(EXAMPLES), app],
            tmp_path,
            env=environment,
            pass_fds=[fd],
            prefix=["bash", "-c", script, "bash"],
        )
        gunicorn.started.append(server)
        server.wait_ready()
        assert server.port == listener.getsockname()[1]
        assert server.request().status == 200
        assert server.request("/health").text == "ok\n"
        assert server.stop() == 0
        socket.create_connection(listener.getsockname()).close()  # it waits in the queue for the next gunicorn


# -- containers


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile."""
    lines = [line for line in configured("Dockerfile").splitlines() if line and not line.startswith("#")]
    assert not any(line.endswith("\\") for line in lines)
    return [(line.split()[0], line.partition(" ")[2]) for line in lines]


def test_the_dockerfile() -> None:
    """Known instructions; what it copies exists; gunicorn is process 1 and nobody special."""
    known = {"FROM", "ENV", "ARG", "COPY", "RUN", "WORKDIR", "USER", "EXPOSE", "STOPSIGNAL", "CMD"}
    found = instructions()
    assert {name for name, _ in found} <= known
    for name, rest in found:
        if name == "COPY":
            *sources, _ = rest.split()
            assert [source for source in sources if not (ROOT / source).exists()] == []
    last = dict(found)
    assert json.loads(last["CMD"])[0] == "gunicorn"
    assert all(int(number) > 0 for number in last["USER"].split(":"))
    assert found[0][0] == "FROM"


def test_what_the_dockerfile_installs(tmp_path: Path) -> None:
    """The requirements of pyproject.toml, before anything that changes more often is copied."""
    (line,) = [rest for name, rest in instructions() if name == "RUN" and rest.startswith("python -c ")]
    line = line.replace("/src/pyproject.toml", str(ROOT / "pyproject.toml")).replace("/src/", f"{tmp_path}/")
    subprocess.run(["sh", "-c", line.replace("python ", f"{sys.executable} ", 1)], check=True, timeout=60)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["websockets"]]
    assert (tmp_path / "requirements.txt").read_text().splitlines() == wanted
    order = [(name, rest.split()[0]) for name, rest in instructions() if name == "COPY" or "pip install" in rest]
    assert order[:2] == [("COPY", "pyproject.toml"), ("RUN", "pip")]


def test_what_the_builder_is_sent() -> None:
    """Dockerfile.dockerignore lets through all that the Dockerfile copies, and not much more."""
    sent = {line[1:] for line in configured("Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    copied = [source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]]
    assert {source.partition("/")[0] for source in copied} == sent


def test_what_the_container_starts(gunicorn: Servers, tmp_path: Path) -> None:
    """The command of the image, in a folder with what was copied, on another port."""
    last = dict(instructions())
    folder = tmp_path / "app"
    folder.mkdir()
    (copied,) = (rest.split() for name, rest in instructions() if name == "COPY" and rest.endswith("/srv/app/"))
    for source in copied[:-1]:
        shutil.copy(ROOT / source, folder)
    _, *argv = json.loads(last["CMD"])
    assert "0.0.0.0:8000" in argv
    server = gunicorn.command([argument.replace("0.0.0.0:8000", "127.0.0.1:0") for argument in argv], folder)
    assert server.request().text.startswith("Hello from ASGI")
    assert server.request("/health").text == "ok\n"
    # A drain delay of 10 s would be waited for: workers are told directly, and asked to hurry.
    assert server.stop(signal.SIGINT) == 0


def yaml_documents(name: str) -> list[Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return list(yaml.safe_load_all(configured(name)))


#: What the objects of kubernetes.yaml may hold: name -> type or a further table. A list holds one such.
PROBE: dict[str, Any] = {
    "httpGet": {"path": str, "port": str},
    "periodSeconds": int,
    "timeoutSeconds": int,
    "failureThreshold": int,
}
RESOURCES = {"cpu": str, "memory": str}
CONTAINER = {
    "name": str,
    "image": str,
    "securityContext": {
        "allowPrivilegeEscalation": bool,
        "readOnlyRootFilesystem": bool,
        "capabilities": {"drop": [str]},
    },
    "volumeMounts": [{"name": str, "mountPath": str}],
    "ports": [{"name": str, "containerPort": int}],
    "env": [{"name": str, "value": str}],
    "resources": {"requests": RESOURCES, "limits": RESOURCES},
    "startupProbe": PROBE,
    "readinessProbe": PROBE,
    "lifecycle": {"preStop": {"exec": {"command": [str]}}},
}
POD = {
    "terminationGracePeriodSeconds": int,
    "enableServiceLinks": bool,
    "securityContext": {"runAsNonRoot": bool, "runAsUser": int, "runAsGroup": int, "seccompProfile": {"type": str}},
    "volumes": [{"name": str, "emptyDir": {"sizeLimit": str}}],
    "containers": [CONTAINER],
}
LABELS = {"app": str}
DEPLOYMENT = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "replicas": int,
        "strategy": {"rollingUpdate": {"maxUnavailable": int, "maxSurge": int}},
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": POD},
    },
}
SERVICE = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {"selector": LABELS, "ports": [{"name": str, "port": int, "targetPort": str}]},
}

BUDGET = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {"maxUnavailable": int, "selector": {"matchLabels": LABELS}},
}


def conform(value: Any, schema: Any, where: str) -> None:
    """Raise for a name or a type that the schema does not have."""
    if isinstance(schema, dict):
        assert isinstance(value, dict), f"{where} is no mapping"
        for name, inner in value.items():
            assert name in schema, f"{where}.{name} is unknown"
            conform(inner, schema[name], f"{where}.{name}")
    elif isinstance(schema, list):
        assert isinstance(value, list), f"{where} is no list"
        for number, inner in enumerate(value):
            conform(inner, schema[0], f"{where}[{number}]")
    else:
        assert type(value) is schema, f"{where} is {value!r}, not {schema.__name__}"


def test_kubernetes() -> None:
    """The objects have the shape that Kubernetes wants, and what they say to each other fits."""
    deployment, service, budget = yaml_documents("kubernetes.yaml")
    conform(deployment, DEPLOYMENT, "Deployment")
    conform(service, SERVICE, "Service")
    conform(budget, BUDGET, "PodDisruptionBudget")
    assert (budget["apiVersion"], budget["kind"]) == ("policy/v1", "PodDisruptionBudget")
    assert (deployment["apiVersion"], deployment["kind"]) == ("apps/v1", "Deployment")
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert budget["spec"]["maxUnavailable"] < deployment["spec"]["replicas"]

    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (port,) = container["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert f":{port['containerPort']}" in dict(instructions())["CMD"]
    security = pod["securityContext"]
    assert dict(instructions())["USER"] == f"{security['runAsUser']}:{security['runAsGroup']}"
    (cores,) = [entry["value"] for entry in container["env"] if entry["name"] == "WEB_CONCURRENCY"]
    assert container["resources"]["requests"]["cpu"] == cores
    (rss,) = [entry["value"] for entry in container["env"] if entry["name"] == "HYBRIDWORKER_MAX_RSS"]
    assert int(cores) * int(rss) < int(container["resources"]["limits"]["memory"].removesuffix("Mi"))
    # Where the root is read-only, gunicorn's heartbeat is in /dev/shm.
    assert settings()["worker_tmp_dir"] == "/dev/shm"
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]]
    for probe in (container["startupProbe"], container["readinessProbe"]):
        assert probe["httpGet"] == {"path": own()["HYBRIDWORKER_HEALTH_PATH"], "port": port["name"]}


def test_kubernetes_gives_the_drain_its_time() -> None:
    """preStop and the graceful timeout end before the pod is killed; readiness fails within the drain delay."""
    deployment, *_ = yaml_documents("kubernetes.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (delay,) = [entry["value"] for entry in container["env"] if entry["name"] == "HYBRIDWORKER_DRAIN_DELAY"]
    command, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert int(pause) + settings()["graceful_timeout"] < pod["terminationGracePeriodSeconds"]
    probe = container["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] <= float(delay) <= settings()["graceful_timeout"] / 2


# -- two instances that share a Redis


def test_two_instances_behind_nginx_share_a_redis(programs: Programs, gunicorn: Servers) -> None:
    """The commands of compose.yaml: what is said to one instance is heard by who is connected to the other."""
    # Redis is asked for first, so that it ends last: workers that lose it complain.
    websockets = pytest.importorskip("websockets.sync.client", reason="the extra [websockets] is not installed")
    pytest.importorskip("channels_redis", "4.3", reason="needs channels-redis 4.3: earlier ones leave connections open")
    (document,) = yaml_documents("compose.yaml")
    services = document["services"]
    found("nginx")
    redis: Program = programs.redis()
    servers = []
    for name, bind in (("one", "127.0.0.1:8000"), ("two", "127.0.0.1:8001")):
        service = services[name]
        _, *argv = service["command"]
        assert bind in argv
        url = service["environment"]["REDIS_URL"]
        assert ":6379/" in url
        env = {**service["environment"], "REDIS_URL": url.replace("6379", str(redis.port))}
        del env["WEB_CONCURRENCY"]  # it is written for what is under load
        *argv, app = (argument.replace(bind, "127.0.0.1:0") for argument in argv)
        folder = programs.folder / name
        folder.mkdir()
        shutil.copy(CONFIG, folder)
        server = Gunicorn([*argv, "--chdir", str(EXAMPLES), app], folder, env=env, cwd=folder)
        gunicorn.started.append(server)
        servers.append(server.wait_ready())
        kind, *probe = service["healthcheck"]["test"]
        assert (kind, probe[0]) == ("CMD", "python")
        check([sys.executable, *(part.replace(bind, f"127.0.0.1:{server.port}") for part in probe[1:])])
    *shell, script = services["nginx"]["command"]
    assert shell == ["sh", "-c"]
    made, _, started = script.partition(" && ")
    assert started == "exec nginx -g 'daemon off;'"
    made = made.replace("/nginx.conf >", f"{DEPLOY}/nginx.conf >").replace("/etc/nginx/conf.d", str(programs.folder))
    subprocess.run([*shell, made], check=True, timeout=60)
    site = (programs.folder / "default.conf").read_text(encoding="utf-8")
    port = free_port()
    for old, new in (("127.0.0.1:8000", servers[0].port), ("127.0.0.1:8001", servers[1].port)):
        assert f"\n    server {old} " in site
        site = site.replace(old, f"127.0.0.1:{new}")
    programs.nginx(site.replace("listen 80;", f"listen 127.0.0.1:{port};"), port)
    url = f"ws://127.0.0.1:{port}/chat"
    with websockets.connect(url, proxy=None) as one, websockets.connect(url, proxy=None) as other:
        pids = [json.loads(socket.recv())["pid"] for socket in (one, other)]
        assert sorted(pids) == sorted(server.worker_pids()[0] for server in servers)
        one.send("hello")
        for socket_ in (one, other):
            assert json.loads(socket_.recv()) == {"pid": pids[0], "text": "hello"}
