"""HTTP/1.1: where messages begin and end, and a response as bytes."""
