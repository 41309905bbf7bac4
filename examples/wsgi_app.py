"""
WSGI without a framework. Shows a body that is read as it comes, and a response that is streamed.

Run it:

    gunicorn -k hybridworker.Worker --threads 8 --chdir examples wsgi_app:app

Try it:

    curl http://127.0.0.1:8000/
    curl --data-binary @README.rst http://127.0.0.1:8000/count
    curl http://127.0.0.1:8000/numbers
"""


def app(environ, start_response):
    """The application: called once for each request, in one of ``--threads`` threads."""
    if environ["PATH_INFO"] == "/":
        return respond(start_response, "200 OK", "Hello from WSGI.\n")
    if environ["PATH_INFO"] == "/count":
        return respond(start_response, "200 OK", f"{count(environ['wsgi.input'])} bytes\n")
    if environ["PATH_INFO"] == "/numbers":
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        return (f"{number}\n".encode() for number in range(10))
    return respond(start_response, "404 Not Found", "Not found\n")


def count(body):
    """The size of the request's body, of which no more than 64 KiB are held at a time."""
    size = 0
    while part := body.read(65536):
        size += len(part)
    return size


def respond(start_response, status, text):
    """A whole response."""
    body = text.encode()
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
