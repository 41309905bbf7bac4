"""
Flask with an application context that was pushed outside of any request, a common idiom.

Where: at import, or by ``post_worker_init`` (``pushed.conf.py``) where ``$PUSH`` says ``hook``.
"""

import os
from contextvars import ContextVar

import gate
from flask import Flask, g, request

app = Flask(__name__)
pushed = app.app_context()

#: As libraries do it: a value at import, which all who see it share.
shared = ContextVar("shared", default=None)


def push():
    pushed.push()
    shared.set([])


if os.environ.get("PUSH") == "import":
    push()


@app.get("/login/<name>")
def login(name):
    """Who was known before, and after."""
    before = g.get("user", "nobody")
    g.user = name
    if "gate" in request.args:
        gate.block(name)
    return f"{before} {g.user} {shared.get()}"


@app.teardown_appcontext
def teardown(exception):
    gate.say(f"teardown of {g.get('user', 'nobody')}")
