"""The test suite.

A package, so that a worker process finds a test's functions under the name that the test knows them
by.
"""
