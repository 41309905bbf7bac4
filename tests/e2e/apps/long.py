"""Long WSGI responses, by a generator and in one piece, and a short one beside them."""

import itertools

MIB = 1024 * 1024
PIECE = bytes(range(256)) * 256


def app(environ, start_response):
    path, size = environ["PATH_INFO"], int(environ["QUERY_STRING"] or 0) * MIB
    if path == "/":
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]
    start_response("200 OK", [])
    if path == "/whole":
        return [PIECE * (size // len(PIECE))]
    if path == "/endless":
        return itertools.repeat(PIECE)
    return (PIECE for _ in range(size // len(PIECE)))
