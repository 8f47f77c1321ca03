"""Tasks whose calls another system carries to its machines: see ``executor.py``."""
