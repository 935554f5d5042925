"""Async shell of stage 3: one module per kind of receiver, all behind one protocol."""
