"""A logger class of the user's own, whose ``access()`` prints what it was given."""

import gate
from gunicorn.glogging import Logger


class CountingLogger(Logger):
    def access(self, resp, req, environ, request_time):
        gate.say(f"access {resp.status} {resp.sent} {req.method} {environ['RAW_URI']} {request_time.seconds}")
        super().access(resp, req, environ, request_time)
