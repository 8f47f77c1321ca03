"""Attacks on the executor: every process may die, hang, fork, close or print anything at any moment, and only the culprit may suffer."""
