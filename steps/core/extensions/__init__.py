"""Plugins: their hooks, loading them, and a typed call for every hook."""
