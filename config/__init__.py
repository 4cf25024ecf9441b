"""Typed settings and the model table: what an operator can say, read once, checked once."""
