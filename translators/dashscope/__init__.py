"""The DashScope tongue: calls in, replies and packets out."""
