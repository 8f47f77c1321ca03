"""One suite, stamped over the standard library's executors and ours: what holds for them has to hold for us."""
