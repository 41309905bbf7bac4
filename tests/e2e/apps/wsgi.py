"""
The WSGI application of the end-to-end tests: one path for each behaviour.

``app`` is the application; what follows the second slash of a path is an argument of
its handler. Every handler runs under ``wsgiref.validate`` unless it breaks a rule on purpose.
"""

import hashlib
import json
import os
import threading
import time
from wsgiref.validate import validator

import gate

CHUNK = b"x" * 65536
FLOOD = 256 * 1024 * 1024


def app(environ, start_response):
    name, _, argument = environ["PATH_INFO"].strip("/").partition("/")
    environ["test.argument"] = argument
    return HANDLERS[name](environ, start_response)


def answer(start_response, body, status="200 OK"):
    if isinstance(body, str):
        body = body.encode()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


@validator
def hello(environ, start_response):
    return answer(start_response, "Hello from WSGI")


@validator
def pid(environ, start_response):
    return answer(start_response, str(os.getpid()))


@validator
def thread(environ, start_response):
    return answer(start_response, f"{threading.get_ident()} {threading.current_thread() is threading.main_thread()}")


def show_environ(environ, start_response):
    shown = {name: value for name, value in environ.items() if isinstance(value, str | int | float | bool | tuple)}
    return answer(start_response, json.dumps(shown))


@validator
def echo(environ, start_response):
    return answer(start_response, environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or -1)))


def read_all(environ, start_response):
    return answer(start_response, environ["wsgi.input"].read())


@validator
def digest(environ, start_response):
    hashed, size = hashlib.sha256(), 0
    while part := environ["wsgi.input"].read(65536):
        hashed.update(part)
        size += len(part)
    return answer(start_response, f"{size} {hashed.hexdigest()}")


def body_after_gate(environ, start_response):
    gate.block(environ["test.argument"])
    return digest(environ, start_response)


class Closing:
    """An iterable that prints when it is closed, and in which thread."""

    def __init__(self, items):
        self.items = iter(items)
        self.thread = None

    def __iter__(self):
        return self

    def __next__(self):
        self.thread = threading.get_ident()
        return next(self.items)

    def close(self):
        gate.say(f"closed in the same thread: {self.thread == threading.get_ident()}")


@validator
def chunks(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Closing(b"chunk %d\n" % number for number in range(int(environ["test.argument"])))


def beats(environ, start_response):
    def items():
        for _ in range(int(environ["test.argument"])):
            time.sleep(0.5)
            yield b"."
        yield str(os.getpid()).encode()

    start_response("200 OK", [("Content-Type", "text/plain")])
    return items()


@validator
def at_gate(environ, start_response):
    gate.block(environ["test.argument"])
    return answer(start_response, f"passed {environ['test.argument']}")


@validator
def head_then_gate(environ, start_response):
    def items():
        yield b"first "
        gate.block(environ["test.argument"])
        yield b"last"

    start_response("200 OK", [("Content-Type", "text/plain")])
    return Closing(items())


def drains_in_close(environ, start_response):
    class Draining(Closing):
        def close(self):
            gate.say(f"drained {len(environ['wsgi.input'].read())} bytes")

    start_response("200 OK", [("Content-Length", "2")])
    return Draining([b"ok"])


@validator
def reads_behind_its_head(environ, start_response):
    def items():
        yield b"begun "
        yield environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))

    start_response("200 OK", [("Content-Type", "text/plain")])
    return Closing(items())


class ClosingBadly(Closing):
    def close(self):
        raise RuntimeError("raised in close()")


def streaming(text):
    """Chunks without end; ``text`` is printed when the first one is asked for."""
    gate.say(text)
    while True:
        yield CHUNK


def closes_badly(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ClosingBadly(streaming("streaming badly"))


def flood(environ, start_response):
    """256 MiB; prints when it is asked for the next item, every 8 MiB."""

    def items():
        for number in range(FLOOD // len(CHUNK)):
            if number % 128 == 0:
                gate.say(f"at {number * len(CHUNK)} bytes")
            yield CHUNK

    start_response("200 OK", [("Content-Length", str(FLOOD))])
    return Closing(items())


def endless(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Closing(streaming("streaming"))


def errors_around_gate(environ, start_response):
    print("written before the gate", file=environ["wsgi.errors"])
    gate.block(environ["test.argument"])
    print("written behind the gate", file=environ["wsgi.errors"])
    return answer(start_response, "written")


def closes_errors(environ, start_response):
    print("written before close()", file=environ["wsgi.errors"])
    environ["wsgi.errors"].close()
    return answer(start_response, "closed")


def raises(environ, start_response):
    raise ValueError("raised before the head")


def raises_after_body(environ, start_response):
    def items():
        yield b"half"
        raise ValueError("raised after the head")

    start_response("200 OK", [("Content-Type", "text/plain")])
    return Closing(items())


HANDLERS = {
    "": hello,
    "at-gate": at_gate,
    "beats": beats,
    "body-after-gate": body_after_gate,
    "chunks": chunks,
    "closes-badly": closes_badly,
    "closes-errors": closes_errors,
    "digest": digest,
    "drains-in-close": drains_in_close,
    "echo": echo,
    "endless": endless,
    "environ": show_environ,
    "errors-around-gate": errors_around_gate,
    "flood": flood,
    "head-then-gate": head_then_gate,
    "pid": pid,
    "raises": raises,
    "raises-after-body": raises_after_body,
    "read-all": read_all,
    "reads-behind-its-head": reads_behind_its_head,
    "thread": thread,
}
