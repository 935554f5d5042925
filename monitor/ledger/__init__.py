"""Async shell around Redis: keys, transactions, streams, fencing, the embedded server."""
