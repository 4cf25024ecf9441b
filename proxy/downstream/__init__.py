"""The door to callers: the one place that knows how HTTP reaches us."""
