"""Calls to bytes and results to values: the host's half (the worker's is ``worker/calls.py``)."""
