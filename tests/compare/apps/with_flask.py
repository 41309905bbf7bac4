"""A WebSocket in a Flask application, by Flask-Sock."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)


@app.route("/")
def page() -> str:
    """A page beside it."""
    return "hello"


@sock.route("/socket")
def echo(client: Any) -> None:
    """Each message comes back."""
    while True:
        client.send(client.receive())
