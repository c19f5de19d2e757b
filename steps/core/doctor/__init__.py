"""What is wrong with a cluster: what is collected of it, the rules, and what mends each failure."""
