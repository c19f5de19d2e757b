"""One shell on each node, whatever carries it, and the node's lock."""
