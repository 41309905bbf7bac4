"""A ``post_request`` hook that says which status it sees."""

import gate


def post_request(worker, request, environ, response):
    gate.say(f"post_request {request.path} {response.status_code}")
