"""
WebSockets over WSGI, as Flask-Sock and simple-websocket make them of the socket in the environ.

``app`` is Flask's. ``raw`` speaks for itself: it switches protocols and then does what its path says.
"""

import os
import resource

from flask import Flask, request
from flask_sock import Sock
from gate import block, say

app = Flask(__name__)
sock = Sock(app)


@app.route("/")
def index():
    return str("gunicorn.socket" in request.environ)


@sock.route("/echo")
def echo(ws):
    while True:
        ws.send(ws.receive())


@sock.route("/peer")
def peer(ws):
    ws.send(f"{request.remote_addr} {request.environ['wsgi.url_scheme']} {ws.sock.getpeername()[0]}")


@sock.route("/fail")
def fail(ws):
    ws.send("about to fail")
    raise ValueError("a fault of the application")


@sock.route("/wait")
def wait(ws):
    ws.send("waiting")
    try:
        ws.receive()
    finally:
        say("the socket has ended")


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

dups = []


def raw(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/exhaust":
        # The pipe keeps its place: the worker's loop needs none until a socket pair is made.
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        try:
            while True:
                dups.append(os.dup(0))
        except OSError:
            pass
    elif path == "/release":
        while dups:
            os.close(dups.pop())
    if "gunicorn.socket" not in environ:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"plain"]
    client = environ["gunicorn.socket"]
    client.sendall(SWITCH)
    if path == "/flood":
        try:
            while True:
                client.sendall(b"x" * 65536)
        except OSError:
            say("the flood has ended")
            raise
    if path == "/deaf":
        block("listen")
        size = 0
        while data := client.recv(65536):
            size += len(data)
        say(f"received {size} bytes")
    if path == "/stop":
        raise StopIteration
    return []
