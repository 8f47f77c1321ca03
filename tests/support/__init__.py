"""What the tests share: fixtures, host programs, functions for workers, looks at the sources.

A package below ``tests``, whose parent is on ``sys.path`` in each process of a test: what is
defined here has the same name in a worker.
"""
