"""One module per venue: its documented formula as parameters and small functions."""
