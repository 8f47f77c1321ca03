"""Large buffers in shared memory on the host's side (the worker's is ``worker/shm_arena.py`` and ``worker/shm_buffers.py``)."""
