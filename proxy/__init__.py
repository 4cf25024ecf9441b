"""The shell: sockets, clocks, ids, keys, limits and logs; it moves bytes and knows no field."""
