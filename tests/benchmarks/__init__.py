"""Benchmarks, run by hand: ``python -m tests.benchmarks``. Never part of the tests: a busy machine must not fail them."""
