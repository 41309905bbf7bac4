"""What is served: which interface it speaks, and how it is called."""
