"""Sets the value of the Server field to ``$SERVER_FIELD``."""

import os

import gunicorn

gunicorn.SERVER = os.environ["SERVER_FIELD"]


def post_request(worker, req, environ, resp):
    worker.log.info("post_request: version %r", getattr(resp, "version", None))
