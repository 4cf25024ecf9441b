"""The command line: one module for each command, and what they share, read by who types."""
