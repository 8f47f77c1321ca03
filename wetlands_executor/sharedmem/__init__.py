"""Large buffers in shared memory, the host's side.

The worker's is ``worker/shm_arena.py`` and ``worker/shm_buffers.py``.
"""
