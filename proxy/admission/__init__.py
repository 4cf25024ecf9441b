"""Who is let in, and how much of it: caller keys, and limits in this process or in Redis."""
