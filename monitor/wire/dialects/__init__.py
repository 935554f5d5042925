"""The venues' own side of their protocols: what a simulator must understand and say so that no client can tell it from the exchange."""
