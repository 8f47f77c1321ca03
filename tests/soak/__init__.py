"""The soak: several executors under mixed work and harm at once, for as long as is asked for.

``python -m tests.soak --help``.
"""
