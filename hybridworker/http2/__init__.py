"""HTTP/2: frames, field sections, and the streams of one connection."""
