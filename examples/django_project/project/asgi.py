"""
The project by ASGI.

Run it:

    gunicorn -k hybridworker.Worker --chdir examples/django_project project.asgi:application

Try it:

    curl http://127.0.0.1:8000/
    curl http://127.0.0.1:8000/async
"""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

application = get_asgi_application()
