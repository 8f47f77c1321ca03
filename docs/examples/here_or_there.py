"""The same program on this machine and on a Dask cluster: variables decide, the code does not.

    python here_or_there.py
    WETLANDS_EXECUTOR_ENGINE=dask:tcp://SCHEDULER:8786 python here_or_there.py
    WETLANDS_EXECUTOR_ENGINE=in-process python here_or_there.py
"""

from wetlands_executor import get_default_executor


def count_primes(limit, task=None):
    """Count the primes below a limit, and say how far it is."""
    found = 0
    for number in range(2, limit):
        found += all(number % divisor for divisor in range(2, int(number**0.5) + 1))
        if task is not None and number % 1000 == 0:
            task.update(current=number, maximum=limit)
    return found


def main():
    """Count in several tasks, and add what two of them have found in a third one."""
    executor = get_default_executor()
    first, second = executor.map_tasks(count_primes, [1000, 5000])
    total = executor.submit(int.__add__, first, second)
    print(type(executor).__name__, first.result(), second.result(), total.result())


if __name__ == "__main__":
    main()
