"""What the servers serve, as users write it; it runs in their processes."""
