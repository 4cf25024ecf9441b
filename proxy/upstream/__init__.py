"""The door to upstreams: the one place that knows how HTTP leaves us."""
