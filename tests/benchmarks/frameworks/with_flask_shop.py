"""Flask as it is used: a page of products from two Jinja templates, with links and filters."""

from __future__ import annotations

from flask import Flask, render_template, request
from jinja2 import DictLoader

from tests.benchmarks.frameworks import catalogue

TEMPLATES = {
    "base.html": """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{% block title %}{% endblock %} - The shop</title></head>
<body><nav>{% for name in categories %}<a href="{{ url_for('shop', category=name) }}">{{ name }}</a>{% endfor %}</nav>
<main>{% block content %}{% endblock %}</main></body></html>
""",
    "shop.html": """{% extends "base.html" %}{% block title %}Products{% endblock %}{% block content %}
<table>{% for product in products %}<tr class="{{ loop.cycle('odd', 'even') }}"><td>{{ product.name }}</td>
<td>{{ product.category }}</td><td>{{ "%.2f"|format(product.price / 100) }}</td>
<td>{% if product.stock %}{{ product.stock }} items{% else %}sold out{% endif %}</td></tr>
{% endfor %}</table>{% endblock %}
""",
}
PRODUCTS = catalogue.products(20)

app = Flask(__name__)
app.jinja_loader = DictLoader(TEMPLATES)


@app.get("/")
def shop() -> str:
    wanted = request.args.get("category")
    products = [product for product in PRODUCTS if wanted in (None, product.category)]
    return render_template("shop.html", products=products, categories=catalogue.CATEGORIES)
