"""The uwsgi protocol: requests that a proxy sends as packets of CGI variables, answered as HTTP/1.1."""
