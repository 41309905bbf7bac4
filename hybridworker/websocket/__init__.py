"""WebSocket: the handshake, the frames, and one connection after the upgrade."""
