"""May anything be changed at all? What preflight asks, and doctor after it."""
