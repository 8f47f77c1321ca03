"""Large buffers: what travels in shared memory, whose it is, and what is left of it."""
