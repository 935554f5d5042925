"""PURE. What to say, to whom, and when."""
