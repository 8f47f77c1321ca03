"""Attacks on the executor.

Every process may die, hang, fork, close or print anything at any moment, and only the culprit may
suffer.
"""
