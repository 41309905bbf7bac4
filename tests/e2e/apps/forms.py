"""Every form an application can have, and forms that say nothing. Each names itself in its answer."""

import functools
import wsgiref.validate

from gate import say


def _decorate(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


async def _asgi(name, scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": name.encode()})


def _wsgi(name, environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [name.encode()]


async def asgi_function(scope, receive, send):
    await _asgi("asgi_function", scope, receive, send)


class _AsgiObject:
    async def __call__(self, scope, receive, send):
        await _asgi("asgi_object", scope, receive, send)


class _AsgiMethod:
    async def method(self, scope, receive, send):
        await _asgi("asgi_method", scope, receive, send)


asgi_object = _AsgiObject()
asgi_method = _AsgiMethod().method
asgi_partial = functools.partial(_asgi, "asgi_partial")
asgi_decorated = _decorate(functools.partial(_asgi, "asgi_decorated"))


def asgi_three_parameters(scope, receive, send):
    return _asgi("asgi_three_parameters", scope, receive, send)


def asgi2_function(scope):
    return functools.partial(_asgi, "asgi2_function", scope)


class asgi2_class:
    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        await _asgi("asgi2_class", self.scope, receive, send)


def wsgi_function(environ, start_response):
    return _wsgi("wsgi_function", environ, start_response)


class wsgi_class:
    def __init__(self, environ, start_response):
        self.items = iter(_wsgi("wsgi_class", environ, start_response))

    def __iter__(self):
        return self.items


class _WsgiObject:
    def __call__(self, environ, start_response):
        return _wsgi("wsgi_object", environ, start_response)


wsgi_object = _WsgiObject()
wsgi_partial = functools.partial(_wsgi, "wsgi_partial")
wsgi_decorated = _decorate(functools.partial(_wsgi, "wsgi_decorated"))


def factory():
    say("the factory was called")
    return wsgi_object


def make_app(config, debug):
    say("a factory was called to find out what it is")
    return wsgi_object


async def asgi_without_send(scope, receive):
    say("half an application was called to find out what it is")


def unclear(*args, **kwargs):
    say("an application was called to find out what it is")
    return wsgi_function(*args, **kwargs)


def undecided(scope, receive=None, send=None):
    say("an application was called to find out what it is")


def _forward(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


class _Middleware:
    def __init__(self, app):
        self.app = app

    def __getattr__(self, name):
        say("an attribute was computed to find out what it is")
        raise AttributeError(name)

    def __call__(self, *args):
        return self.app(*args)


wsgi_forwarded = _forward(_Middleware(functools.partial(_wsgi, "wsgi_forwarded")))
wsgi_validated = wsgiref.validate.validator(functools.partial(_wsgi, "wsgi_validated"))
asgi_forwarded = _forward(_Middleware(_forward(functools.partial(_asgi, "asgi_forwarded"))))
asgi_middleware = _Middleware(functools.partial(_asgi, "asgi_middleware"))


async def asgi_any_arguments(*args):
    await _asgi("asgi_any_arguments", *args)


not_callable = "a string"
