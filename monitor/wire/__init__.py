"""PURE. Bytes to values and back: venue frames, portfolio documents, results, events."""
