"""
What a WSGI call finds in its context: ``wsgi`` answers with its thread and with the names and values there.

``/set/NAME`` leaves a variable set; with a second part it waits at the gate of that name.
"""

import json
import threading
from contextvars import ContextVar, copy_context

import gate

left = ContextVar("left")
imported = ContextVar("imported")
imported.set("by the import")


def wsgi(environ, start_response):
    _, name, *gates = environ["PATH_INFO"].strip("/").split("/")
    environ["wsgi.input"].read()
    seen = {variable.name: value for variable, value in copy_context().items()}
    left.set(name)
    for waits in gates:
        gate.block(waits)
    body = json.dumps([threading.get_ident(), seen, left.get()]).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body] if "list" in environ["QUERY_STRING"] else iter([body])
