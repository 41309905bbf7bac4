"""A program with gunicorn inside, as its documentation shows it; the arguments are a port and a folder."""

import os
import sys
from pathlib import Path

import gate
from gunicorn.app.base import BaseApplication
from gunicorn.config import KNOWN_SETTINGS
from gunicorn.errors import AppImportError


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Embedded(BaseApplication):
    def load_config(self):
        options = {"worker_class": "hybridworker.Worker", "workers": 2, "bind": f"127.0.0.1:{sys.argv[1]}"}
        options["control_socket_disable"] = True
        for name in options.keys() & {setting.name for setting in KNOWN_SETTINGS}:
            self.cfg.set(name, options[name])

    def load(self):
        if Path(sys.argv[2], "bad").exists():
            gate.block(f"load{os.getpid()}")
            raise AppImportError("there is none")
        return app


if __name__ == "__main__":
    Embedded().run()
