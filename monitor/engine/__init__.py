"""PURE. The margin model in columns, kept up to date tick by tick."""
