"""Large buffers in shared memory on the host's side (the worker's is ``worker/arena.py`` and ``worker/parcels.py``)."""
