"""Runs ``flask_pushed.push()`` when the worker is ready, if ``$PUSH`` says so."""

import os


def post_worker_init(worker):
    if os.environ["PUSH"] == "hook":
        import flask_pushed

        flask_pushed.push()
