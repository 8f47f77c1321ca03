"""Benchmarks, run by hand: ``python -m tests.benchmarks``.

Never part of the tests: a busy machine must not fail them.

One file per concern::

    functions.py   what is called; the same for all systems
    script.py      a user's script: what is sent by value
    systems.py     the executors that are compared, each behind the same few methods
    floors.py      what no executor can go below: a pipe, a bare Future, a copy of memory
    held.py        holds all workers of a pool at a known place
    model.py       Case, Bound
    cases_*.py     the cases; ``registry.py`` lists these files
    driver.py      the process that one system runs in
    runs.py        starts drivers, runs them in turn, ends those that hang
    report.py      figures to tables; bounds met and not met
    chart.py       figures to a picture
    steps.py       where the time of one round trip goes
"""
