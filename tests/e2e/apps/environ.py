"""A WSGI application that answers with its environ, as JSON: strings as they are, of everything else the kind."""

import json


def app(environ, start_response):
    """The values of the keys that gunicorn documents as plain; for streams and callables, what they can do."""
    shown = {key: value if isinstance(value, str | bool) else kind(value) for key, value in environ.items()}
    body = json.dumps(shown).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def kind(value):
    if isinstance(value, tuple):
        return list(value)
    methods = ("read", "readline", "readlines", "__iter__", "write", "writelines", "flush", "__call__")
    return [name for name in methods if hasattr(value, name)]
