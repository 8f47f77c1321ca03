"""One suite, run with the standard library's executors and ours.

What holds for them has to hold for us.
"""
