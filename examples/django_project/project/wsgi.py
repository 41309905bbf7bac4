"""
The project by WSGI.

Run it:

    gunicorn -k hybridworker.Worker --threads 8 --chdir examples/django_project project.wsgi:application

Try it:

    curl http://127.0.0.1:8000/
    curl -F file=@README.rst http://127.0.0.1:8000/upload
"""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

application = get_wsgi_application()
