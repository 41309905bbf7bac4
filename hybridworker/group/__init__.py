"""The workers of one master: what they know of each other."""
