"""PURE. The margin model: what an account is worth and what it must hold."""
