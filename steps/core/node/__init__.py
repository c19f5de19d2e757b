"""One node: what it should have, what it has, what differs, and the script that applies it."""
