"""One module per venue: its codec and the topics that carry what is wanted."""
