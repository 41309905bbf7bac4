"""
File download by ``http.response.pathsend``: the worker sends the file, not the application.

Serves the folder that ``FILES`` names, by default the one of this file.

Run it:

    gunicorn -k hybridworker.Worker --chdir examples files_app:app

Try it:

    curl -O http://127.0.0.1:8000/files_app.py
    curl -I http://127.0.0.1:8000/files_app.py
"""

import mimetypes
import os
from pathlib import Path

FILES = Path(os.environ.get("FILES", Path(__file__).parent)).resolve()


async def app(scope, receive, send):
    """Serve the files of one folder, and nothing outside it."""
    if scope["type"] != "http":
        raise NotImplementedError(f"{scope['type']} is not served here")
    if scope["method"] not in ("GET", "HEAD"):
        await respond(send, 405, b"Only GET and HEAD\n", [(b"allow", b"GET, HEAD")])
        return
    path = find(scope["path"])
    if path is None:
        await respond(send, 404, b"Not found\n")
        return
    content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % path.stat().st_size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    # The worker announces what it can do for this request. Another server may announce less.
    if "http.response.pathsend" in scope.get("extensions", {}):
        await send({"type": "http.response.pathsend", "path": str(path)})
    else:
        await send({"type": "http.response.body", "body": path.read_bytes()})


def find(name):
    """The file that a path of a URL names, or None."""
    if "\0" in name:
        return None
    path = (FILES / name.lstrip("/")).resolve()
    return path if path.is_relative_to(FILES) and path.is_file() else None


async def respond(send, status, body, headers=()):
    """Send a whole response."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
