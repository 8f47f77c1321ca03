"""Decisions about items and workers. Pure: no thread, clock, descriptor, future or logging."""
