"""``Task``, the Future of a call in another environment, and its parts.

Nothing here imports the pool.
"""
