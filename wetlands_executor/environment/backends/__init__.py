"""Who makes environments: one module per package manager, behind one small protocol.

``choose`` decides which of them makes a given environment; ``creation`` calls it. A backend
installs into a folder that is its own for the time, and knows nothing of caches, locks and
records.
"""
