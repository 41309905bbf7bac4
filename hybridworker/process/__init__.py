"""One worker process: its loop, its connections, what watches over it, and how it ends."""
