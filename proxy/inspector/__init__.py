"""The last calls, both sides of each, in memory: taps at the two doors, and what is made of them."""
