"""The live page: accounts ranked by danger, ratios over time, what-if answers, and the static files that show them."""
