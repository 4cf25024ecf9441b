"""Log lines, metrics and traces of the process and its calls."""
