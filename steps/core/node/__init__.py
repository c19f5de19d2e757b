"""One node: the shell on it, the look, what differs, and the script that applies it."""
