"""One suite, stamped over the standard library's executors and ours.

What holds for them has to hold for us.
"""
