"""The process: it listens, has workers, says that it is ready, drains, and ends."""
