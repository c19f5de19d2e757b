"""Certificates: keys, requests, validation, the store, and real handshakes."""
