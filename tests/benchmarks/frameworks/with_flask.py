"""Flask: a JSON view."""

from __future__ import annotations

from flask import Flask, Response, jsonify

from tests.benchmarks.frameworks import ANSWER

app = Flask(__name__)


@app.get("/")
def view() -> Response:
    return jsonify(ANSWER)
