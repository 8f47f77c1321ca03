"""Data that travels between different versions of Python, numpy and other packages."""
