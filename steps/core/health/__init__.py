"""What a cluster is like right now: the gate, the whole health, the handshakes."""
