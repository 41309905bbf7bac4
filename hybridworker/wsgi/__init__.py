"""WSGI applications: PEP 3333 on ASGI messages, in threads."""
