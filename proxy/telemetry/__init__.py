"""What is told of the process and its calls: log lines, metrics, traces."""
