"""
Flask: JSON, a form with a file, a streamed response.

Run it:

    gunicorn -k hybridworker.Worker --threads 8 --chdir examples flask_app:app

Try it:

    curl http://127.0.0.1:8000/
    curl -F file=@README.rst http://127.0.0.1:8000/upload
    curl http://127.0.0.1:8000/numbers
"""

from flask import Flask, Response, jsonify, request

app = Flask(__name__)


@app.get("/")
def hello():
    """Answer with JSON."""
    return jsonify(hello="Flask", client=request.remote_addr)


@app.post("/upload")
def upload():
    """The name and the size of a file in a form."""
    file = request.files["file"]
    return jsonify(name=file.filename, size=len(file.read()))


@app.get("/numbers")
def numbers():
    """Send each number as soon as it is there."""
    return Response((f"{number}\n" for number in range(10)), mimetype="text/plain")
