"""
Applications that take signals, fork children, and end their worker.

``install`` is what ``$INSTALL`` names; ``$WHERE`` says when: at import, or in ``post_worker_init``
(``signalled.conf.py``), or in lifespan startup.
"""

import asyncio
import faulthandler
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import gate

fork = multiprocessing.get_context("fork")
workers = []


def taken(number, frame):
    gate.say(f"taken {signal.Signals(number).name}")


def raises(number, frame):
    gate.say(f"taken {signal.Signals(number).name}")
    raise ValueError("raised in the handler")


def exits(number, frame):
    gate.say(f"taken {signal.Signals(number).name}")
    raise SystemExit(7)


def chained():
    before = signal.getsignal(signal.SIGTERM)

    def handler(number, frame):
        gate.say("taken SIGTERM")
        before(number, frame)

    signal.signal(signal.SIGTERM, handler)


INSTALL = {
    "nothing": lambda: None,
    "term": lambda: signal.signal(signal.SIGTERM, taken),
    "raises": lambda: signal.signal(signal.SIGTERM, raises),
    "exits": lambda: signal.signal(signal.SIGTERM, exits),
    "chained": chained,
    "ignored": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "default": lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    "loop": lambda: asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, taken, signal.SIGTERM, None),
    "usr1": lambda: signal.signal(signal.SIGUSR1, taken),
    "faulthandler": lambda: faulthandler.register(signal.SIGUSR1, all_threads=True),
}


def install(where):
    if os.environ.get("WHERE", "import") == where:
        INSTALL[os.environ.get("INSTALL", "nothing")]()


install("import")
if Path(os.environ["GATES"], "slow").exists():
    gate.block("import")


# -- what requests ask for


def pool():
    """A pool in a with statement ends its processes by TERM, and waits for them."""
    with fork.Pool(2) as pool:
        return str(pool.map(abs, [-1, -2]))


def terminate():
    """The exit code of a child that was told to go."""
    child = fork.Process(target=signal.pause)
    child.start()
    child.terminate()
    child.join(30)
    code = child.exitcode
    child.kill()
    return str(code)


def describe_child(connection):
    dispositions = [signal.getsignal(number) for number in SIGNALS]
    connection.send([getattr(one, "__name__", getattr(one, "name", None)) for one in dispositions])
    connection.send(signal.set_wakeup_fd(-1))


SIGNALS = [signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGABRT, signal.SIGUSR1, signal.SIGUSR2]


def child():
    """The handlers and the wake-up descriptor of a child."""
    ours, theirs = fork.Pipe()
    process = fork.Process(target=describe_child, args=(theirs,))
    process.start()
    described = f"{ours.recv()} {ours.recv()}"
    process.join(30)
    return described


def leave():
    """From a thread that is neither the loop's nor of a call."""
    thread = threading.Thread(target=lambda: setattr(workers[0], "alive", False))
    thread.start()
    thread.join()
    return "told"


def pid():
    return str(os.getpid())


ANSWERS = {"pool": pool, "terminate": terminate, "child": child, "leave": leave, "pid": pid}


async def interrupts(name):
    raise {
        "KeyboardInterrupt": KeyboardInterrupt(),
        "SystemExit": SystemExit(),
        "Exit3": SystemExit(3),  # with which gunicorn's own workers say that they could not boot
        "BaseException": BaseException(),
    }[name]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        install("lifespan")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        gate.say("lifespan shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    name, _, argument = scope["path"].strip("/").partition("/")
    if name == "at-gate":
        await gate.wait(argument)
        body = f"passed {argument}"
    elif name == "task":
        workers.append(asyncio.ensure_future(interrupts(argument)))  # kept, so that it is not collected
        body = "begun"
    elif name == "unused":
        body = "unused"
    else:
        body = ANSWERS[name]()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body.encode()})


def wsgi(environ, start_response):
    name, _, argument = environ["PATH_INFO"].strip("/").partition("/")
    if name == "at-gate":
        gate.block(argument)
        body = f"passed {argument}"
    elif name == "unused":
        body = "unused"
    else:
        body = ANSWERS[name]()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body.encode()]
