"""The ASGI application in the wrapper that granian has for servers behind a proxy."""

from granian.utils.proxies import wrap_asgi_with_proxy_headers

from . import asgi

behind_a_proxy = wrap_asgi_with_proxy_headers(asgi.app, trusted_hosts="*")
