"""The same small JSON answer from the frameworks, one module each; importing one must not import another."""

ANSWER = {"message": "Hello, world!", "items": [1, 2, 3]}
