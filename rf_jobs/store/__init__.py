"""Everything that knows Redis: keys, scripts, commands as values, and the executors that run them."""
