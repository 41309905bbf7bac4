"""A small Django project that is served by WSGI and by ASGI; the commands are in wsgi.py and asgi.py."""
