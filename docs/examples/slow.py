"""What the examples run in a worker.

A call that takes its time, reports its progress, and stops when it is asked to. It imports nothing,
so it works in any environment. The programs name it as ``"slow.py:count"`` and never import it
themselves.
"""


def count(steps, pause, task):
    """Count to ``steps`` with ``pause`` seconds between two; return how far it came."""
    import time

    for step in range(steps):
        if task.should_stop():
            task.cancel()
            return step
        time.sleep(pause)
        task.update(f"step {step + 1} of {steps}", current=step + 1, maximum=steps)
    return steps
